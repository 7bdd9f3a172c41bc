//! The names of a simulated disk.

use std::collections::BTreeMap;
use std::io;

use super::fate::Dice;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(u64),
    Directory(u64),
}

type Names = BTreeMap<String, Entry>;

/// One directory: its names now, and as they were before each change since the last sync.
#[derive(Debug, Clone, Default)]
struct Directory {
    names: Names,
    older: Vec<Names>,
}

/// Every directory, by number; the root is 0.
#[derive(Debug, Clone)]
pub(super) struct Directories {
    directories: BTreeMap<u64, Directory>,
    next: u64,
}

fn missing<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

impl Directories {
    pub(super) fn new() -> Self {
        Self {
            directories: BTreeMap::from([(0, Directory::default())]),
            next: 0,
        }
    }

    fn entry(&self, path: &[String]) -> io::Result<Entry> {
        let mut at = Entry::Directory(0);
        for name in path {
            let Entry::Directory(number) = at else {
                return missing();
            };
            let names = self.directories.get(&number).map(|found| &found.names);
            at = match names.and_then(|names| names.get(name)) {
                Some(entry) => *entry,
                None => return missing(),
            };
        }
        Ok(at)
    }

    pub(super) fn file(&self, path: &[String]) -> io::Result<u64> {
        match self.entry(path)? {
            Entry::File(file) => Ok(file),
            Entry::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn directory(&mut self, path: &[String]) -> io::Result<&mut Directory> {
        match self.entry(path)? {
            Entry::Directory(number) => self
                .directories
                .get_mut(&number)
                .ok_or(io::ErrorKind::NotFound.into()),
            Entry::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Changes the names of the directory above the last name of `path`.
    fn change(
        &mut self,
        path: &[String],
        act: impl FnOnce(&mut Names, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some((name, above)) = path.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = self.directory(above)?;
        let before = directory.names.clone();
        act(&mut directory.names, name)?;
        directory.older.push(before);
        Ok(())
    }

    pub(super) fn link(&mut self, path: &[String], file: u64) -> io::Result<()> {
        self.change(path, |names, name| {
            if names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            names.insert(name.to_owned(), Entry::File(file));
            Ok(())
        })
    }

    pub(super) fn create_dir(&mut self, path: &[String]) -> io::Result<()> {
        let number = self.next + 1;
        self.change(path, |names, name| {
            if names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            names.insert(name.to_owned(), Entry::Directory(number));
            Ok(())
        })?;
        self.next = number;
        self.directories.insert(number, Directory::default());
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &[String]) -> io::Result<()> {
        self.file(path)?;
        self.change(path, |names, name| {
            names.remove(name);
            Ok(())
        })
    }

    pub(super) fn remove_dir(&mut self, path: &[String]) -> io::Result<()> {
        if !self.directory(path)?.names.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change(path, |names, name| {
            names.remove(name);
            Ok(())
        })
    }

    /// Renames within one directory.
    pub(super) fn rename(&mut self, from: &[String], to: &[String]) -> io::Result<()> {
        let (Some((old, above)), Some((new, beside))) = (from.split_last(), to.split_last()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if above != beside {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let entry = self.entry(from)?;
        if let (Entry::Directory(_), Ok(_)) = (entry, self.entry(to)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(from, |names, _| {
            names.remove(old);
            names.insert(new.clone(), entry);
            Ok(())
        })
    }

    pub(super) fn list(&mut self, path: &[String]) -> io::Result<Vec<String>> {
        Ok(self.directory(path)?.names.keys().cloned().collect())
    }

    pub(super) fn sync(&mut self, path: &[String]) -> io::Result<()> {
        self.directory(path)?.older.clear();
        Ok(())
    }

    pub(super) fn links(&self, file: u64) -> u64 {
        self.directories
            .values()
            .flat_map(|directory| directory.names.values())
            .filter(|entry| **entry == Entry::File(file))
            .count() as u64
    }

    /// Every file that has, or may have after a crash, a name.
    pub(super) fn named_files(&self) -> std::collections::BTreeSet<u64> {
        self.directories
            .values()
            .flat_map(|directory| directory.older.iter().chain([&directory.names]))
            .flat_map(BTreeMap::values)
            .filter_map(|entry| match entry {
                Entry::File(file) => Some(*file),
                Entry::Directory(_) => None,
            })
            .collect()
    }

    pub(super) fn after_crash(&self, dice: &mut Dice) -> Self {
        let directories = self
            .directories
            .iter()
            .map(|(number, directory)| {
                let state = dice.pick(directory.older.len());
                let names = directory.older.get(state).unwrap_or(&directory.names);
                let found = Directory {
                    names: names.clone(),
                    older: Vec::new(),
                };
                (*number, found)
            })
            .collect();
        Self {
            directories,
            next: self.next,
        }
    }
}
