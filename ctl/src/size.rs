//! Sizes as people write and read them.

/// Reads a size: a whole number and an optional unit (KiB, MiB, GiB, TiB, or K, M, G, T for the
/// same). Decimal units are refused: a volume is a whole number of 4 KiB blocks.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "Ki" | "KiB" => 10,
        "M" | "Mi" | "MiB" => 20,
        "G" | "Gi" | "GiB" => 30,
        "T" | "Ti" | "TiB" => 40,
        "KB" | "MB" | "GB" | "TB" => {
            return Err(format!("{unit} is ambiguous; write {}iB", &unit[..1]));
        }
        _ => return Err("write a size such as 10GiB, 512MiB or 4096".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a size such as 10GiB, 512MiB or 4096".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "larger than any volume can be".to_owned())
}

/// A size for people: three digits and a unit.
pub(crate) fn show(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (63 - (bytes | 1).leading_zeros()) as usize / 10;
    let unit = unit.min(UNITS.len() - 1);
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_units() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("2 T"), Ok(2 << 40));
        for text in ["", "GiB", "1.5GiB", "-1", "1GB", "99999999999TiB", "1 X"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        assert_eq!(show(0), "0 B");
        assert_eq!(show(1536), "1.5 KiB");
        assert_eq!(show(1 << 30), "1.0 GiB");
        assert_eq!(show(u64::MAX), "16383.9 PiB");
    }
}
