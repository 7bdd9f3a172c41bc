//! The files that git tracks, as text.

use std::path::Path;
use std::process::Command;

/// A text file of the repository.
pub(crate) struct SourceFile {
    /// From the top, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is test code.
    pub(crate) fn is_test(&self) -> bool {
        let in_folder = self
            .path
            .split('/')
            .any(|part| part == "tests" || part == "fuzz");
        in_folder || self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs")
    }

    /// Its lines with their numbers, without the test module at its end.
    pub(crate) fn lines_without_tests(&self) -> Vec<(usize, &str)> {
        let lines: Vec<(usize, &str)> = self
            .text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
            .collect();
        let tests = lines.windows(2).position(|pair| {
            pair[0].1 == "#[cfg(test)]" && pair[1].1.starts_with("mod ") && pair[1].1.ends_with('{')
        });
        match tests {
            Some(at) => lines[..at].to_vec(),
            None => lines,
        }
    }
}

/// Every text file that git tracks or would track.
pub(crate) struct Repository {
    pub(crate) files: Vec<SourceFile>,
}

impl Repository {
    /// The repository that this test was built in.
    pub(crate) fn read() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("a workspace around");
        let listing = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(top)
            .output()
            .expect("git runs");
        assert!(listing.status.success(), "git ls-files: {listing:?}");
        let listing = String::from_utf8(listing.stdout).expect("paths are UTF-8");
        let files = listing
            .split('\0')
            .filter(|path| !path.is_empty())
            .filter_map(|path| {
                let text = std::fs::read_to_string(top.join(path)).ok()?;
                Some(SourceFile::new(path, &text))
            })
            .collect();
        Self { files }
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.is_rust())
    }

    pub(crate) fn find(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }
}
