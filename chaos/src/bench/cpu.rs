//! CPU time of processes.

use anyhow::Context;

/// User and system time that these processes have used so far, in seconds (fields 14 and 15 of
/// `/proc/PID/stat`, in clock ticks).
pub(super) fn cpu_seconds(pids: &[i32]) -> anyhow::Result<f64> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} is gone"))?;
        // The second field is the command in parentheses, which may hold spaces.
        let fields: Vec<&str> = text
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        for field in fields.get(11..13).context("short /proc/PID/stat")? {
            ticks += field.parse::<u64>()?;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let seconds = ticks as f64 / ticks_per_second as f64;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_some_time() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = cpu_seconds(&[pid]).unwrap();
        let mut sum = 0_u64;
        while cpu_seconds(&[pid]).unwrap() <= before {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        assert!(cpu_seconds(&[pid]).unwrap() > before, "{sum}");
        assert!(cpu_seconds(&[-1]).is_err());
    }
}
