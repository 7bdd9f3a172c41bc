//! A store as text: its directories, its small files line by line, and of its sparse files each run
//! of equal words that is not a hole.
//!
//! ```text
//! directory replicas
//! file disk.json 125
//! | {
//! file replicas/…/layers/0000000000000001.img 4505600
//! 0 512x0100000000000000
//! ```
//!
//! A text file ends with a line feed. Offsets and lengths are decimal, words 8 bytes in hexadecimal.
//! A page that holds nothing but zeros has one run, so that it is no hole.

use std::fmt::Write;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, read_exact_at};

const PAGE: usize = 4096;
const WORD: usize = 8;
/// Names that end so are told line by line.
const TEXT: &str = ".json";
const FILE_BYTES_MAX: usize = 1 << 20;

/// The store at the root of this disk as text.
///
/// # Errors
///
/// What the disk says.
pub fn pack<D: Disk>(disk: &D) -> io::Result<String> {
    let mut out = String::new();
    pack_directory(disk, Path::new(""), &mut out)?;
    Ok(out)
}

fn pack_directory<D: Disk>(disk: &D, directory: &Path, out: &mut String) -> io::Result<()> {
    for name in disk.list(directory)? {
        let path = directory.join(&name);
        let shown = path.display();
        if disk.list(&path).is_ok() {
            line(out, format_args!("directory {shown}"))?;
            pack_directory(disk, &path, out)?;
            continue;
        }
        let file = disk.open(&path)?;
        line(out, format_args!("file {shown} {}", file.len()?))?;
        if name.ends_with(TEXT) {
            let text = disk.read_file(&path, FILE_BYTES_MAX)?;
            for text_line in String::from_utf8_lossy(&text).lines() {
                line(out, format_args!("| {text_line}"))?;
            }
        } else {
            pack_pages(&file, out)?;
        }
    }
    Ok(())
}

fn line(out: &mut String, words: std::fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(out, "{words}").map_err(io::Error::other)
}

fn pack_pages<F: DiskFile>(file: &F, out: &mut String) -> io::Result<()> {
    let (mut at, length) = (0, file.len()?);
    while let Some(data) = file.next_data(at)? {
        for start in (data.start..data.end.min(length)).step_by(PAGE) {
            let bytes = usize::try_from(length - start).unwrap_or(PAGE).min(PAGE);
            let mut page = vec![0; bytes];
            read_exact_at(file, &mut page, start)?;
            pack_page(start, &page, out)?;
        }
        at = data.end;
    }
    Ok(())
}

fn pack_page(start: u64, page: &[u8], out: &mut String) -> io::Result<()> {
    let words: Vec<&[u8]> = page.chunks(WORD).collect();
    let empty = page.iter().all(|byte| *byte == 0);
    let mut at = start;
    for run in words.chunk_by(|one, next| one == next) {
        let word = run.first().copied().unwrap_or_default();
        if empty || word.iter().any(|byte| *byte != 0) {
            let digits: String = word.iter().map(|byte| format!("{byte:02x}")).collect();
            line(out, format_args!("{at} {}x{digits}", run.len()))?;
        }
        at += (run.len() * word.len()) as u64;
    }
    Ok(())
}

/// Writes the store that the text tells of to an empty disk.
///
/// # Errors
///
/// What the disk says; `InvalidData` for a line that is none.
pub fn unpack<D: Disk>(text: &str, disk: &D) -> io::Result<()> {
    let mut current: Option<(D::File, u64)> = None;
    let mut text_at = 0;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("directory ") {
            disk.create_dir(Path::new(path))?;
        } else if let Some(named) = line.strip_prefix("file ") {
            current = Some(create(disk, named)?);
            text_at = 0;
        } else if let Some(words) = line.strip_prefix("| ") {
            let (file, _) = current.as_ref().ok_or_else(|| no_line(line))?;
            let bytes = [words.as_bytes(), b"\n"].concat();
            file.write_at(&[IoSlice::new(&bytes)], text_at)?;
            text_at += bytes.len() as u64;
        } else {
            let (file, length) = current.as_ref().ok_or_else(|| no_line(line))?;
            let (offset, bytes) = run(line).ok_or_else(|| no_line(line))?;
            if offset + bytes.len() as u64 > *length {
                return Err(no_line(line));
            }
            file.write_at(&[IoSlice::new(&bytes)], offset)?;
        }
    }
    Ok(())
}

fn create<D: Disk>(disk: &D, named: &str) -> io::Result<(D::File, u64)> {
    let (path, length) = named.rsplit_once(' ').ok_or_else(|| no_line(named))?;
    let length = length.parse().map_err(|_| no_line(named))?;
    let file = disk.create(&PathBuf::from(path))?;
    file.set_len(length)?;
    Ok((file, length))
}

/// `OFFSET TIMESxWORD`
fn run(line: &str) -> Option<(u64, Vec<u8>)> {
    let (offset, rest) = line.split_once(' ')?;
    let (times, digits) = rest.split_once('x')?;
    let word: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let times = times.parse::<usize>().ok().filter(|times| *times <= PAGE)?;
    Some((offset.parse().ok()?, word?.repeat(times)))
}

fn no_line(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no line of a store: {line}"),
    )
}
