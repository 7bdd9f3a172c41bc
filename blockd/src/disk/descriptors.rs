//! How many files the process may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to what the system lets this process have; how many that are, `None`: any
/// number. A replica with 254 sealed layers has 765 files open.
///
/// # Errors
///
/// What the system said; the limit is as before then.
pub fn raise_open_files_limit() -> io::Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_the_system_allows() {
        let allowed = raise_open_files_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
    }
}
