//! The command as a process whose output nobody reads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

#[test]
fn a_reader_that_goes_away_ends_the_command_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dev.json");
    std::fs::write(file, r#"{ "format": 1, "base_port": 9000 }"#).unwrap();
    for output in ["table", "json"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_ankole"))
            .args(["--output", output, "dev", "status", "--directory"])
            .arg(folder.path())
            .stdout(writer)
            .output()
            .unwrap();
        assert!(!ended.status.success());
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(said, "", "as {output}");
    }
}
