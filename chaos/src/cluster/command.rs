//! Running programs.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Runs a program and returns what it prints; its error output is in the error.
pub fn capture<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> anyhow::Result<String> {
    let shown = || {
        let words: Vec<_> = arguments
            .iter()
            .map(|word| word.as_ref().to_string_lossy().into_owned())
            .collect();
        format!("{} {}", program.display(), words.join(" "))
    };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {}", shown()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", shown()))
}

/// Runs a program found on the PATH.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<String> {
    capture(Path::new(program), arguments)
}
