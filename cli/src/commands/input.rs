//! Items from lines, JSON, file names or numbers, each with a key that names it in every run.

mod csv;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use gangline_worker::protocol::limits::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use gangline_worker::protocol::{Json, NewItem};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::Error;
use csv::Csv;

/// Where the items come from.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Items")]
pub(crate) struct InputArgs {
    /// File with one item a line; stdin when no other input is given
    #[arg(short = 'a', long = "arg-file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Items end with NUL bytes instead of line ends, as find -print0 writes them
    #[arg(short = '0', long = "null")]
    null: bool,
    /// Every line is a JSON value (so for files named *.jsonl and *.ndjson)
    #[arg(long, conflicts_with = "null")]
    json: bool,
    /// The items are records of comma-separated values: objects whose fields the first line names
    #[arg(long, conflicts_with_all = ["null", "json"])]
    csv: bool,
    /// The items are the files that match a pattern, as in '**/*.rs'
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["file", "range", "null", "json", "csv"])]
    glob: Option<String>,
    /// The items are these numbers, as in 1..300, both ends included
    #[arg(long, value_name = "FIRST..LAST", conflicts_with_all = ["file", "null", "json", "csv"])]
    range: Option<Range>,
}

/// Numbers from `first` to `last`, both included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    first: i64,
    last: i64,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text
            .split_once("..")
            .ok_or("must be FIRST..LAST, as in 1..300")?;
        let number = |text: &str| {
            text.trim_start_matches('=')
                .parse::<i64>()
                .map_err(|_| format!("{text:?} is no whole number"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{first} comes after {last}"));
        }
        Ok(Self { first, last })
    }
}

/// One item after the other.
pub(crate) type Items = Box<dyn Iterator<Item = Result<NewItem, Error>> + Send>;

impl InputArgs {
    /// Says whether an input is named; otherwise it is stdin.
    pub(crate) fn is_given(&self) -> bool {
        self.file.is_some() || self.glob.is_some() || self.range.is_some()
    }

    /// Returns the numbers as a Job's annotation names them, which knows none below 0.
    pub(crate) fn as_range(&self) -> Option<String> {
        let Range { first, last } = self.range?;
        let fits = first >= 0 && last <= u32::MAX.into();
        fits.then(|| format!("{first}..{last}"))
    }

    /// Says what is wrong when the items would have to be typed at a terminal.
    pub(crate) fn missing(&self) -> Option<Error> {
        if self.is_given() || !io::stdin().is_terminal() {
            return None;
        }
        let error = Error::usage("there are no items: stdin is a terminal");
        Some(
            error.hint("pipe them in (find . | gangline run …), or use -a FILE, --glob or --range"),
        )
    }

    /// Opens the input.
    pub(crate) fn open(self) -> Result<Items, Error> {
        if let Some(error) = self.missing() {
            return Err(error);
        }
        let Self {
            file,
            null,
            json,
            csv,
            glob,
            range,
        } = self;
        let mut keys = Keys::default();
        if let Some(Range { first, last }) = range {
            return Ok(Box::new((first..=last).map(move |number| {
                let text = number.to_string();
                item(json_of(&text, true, "a number")?, keys.key(&text))
            })));
        }
        if let Some(pattern) = glob {
            let paths = glob::glob(&pattern).map_err(|error| {
                Error::usage(format!("--glob {pattern:?}: {error}"))
                    .hint("quote it, so that the shell leaves it alone: --glob '**/*.jpg'")
            })?;
            let files = paths.filter(|path| path.as_ref().map_or(true, |path| path.is_file()));
            return Ok(Box::new(files.map(move |path| {
                let path = path.map_err(|error| Error::disk(error.to_string()))?;
                let text = path.to_str().ok_or_else(|| {
                    Error::usage(format!("the file name {} is not UTF-8", path.display()))
                })?;
                item(json_of(text, false, text)?, keys.key(text))
            })));
        }
        let mut json = json;
        let reader: Box<dyn BufRead + Send> = match &file {
            Some(path) => {
                let extension = path.extension().and_then(|extension| extension.to_str());
                json |= matches!(extension, Some("jsonl" | "ndjson")) && !null;
                let file = File::open(path).map_err(|error| {
                    Error::usage(format!("cannot read {}: {error}", path.display()))
                        .hint("-a FILE names a file with one item a line; without it they come from stdin")
                })?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
            None => Box::new(BufReader::with_capacity(1 << 16, io::stdin())),
        };
        let name = file.map_or("stdin".into(), |path| path.display().to_string());
        if csv {
            let mut records = Csv::new(reader, name.clone());
            return Ok(Box::new(std::iter::from_fn(move || {
                let record = records.object().transpose()?;
                Some(record.and_then(|text| item(json_of(&text, true, &name)?, keys.key(&text))))
            })));
        }
        Ok(Box::new(Lines {
            reader,
            end: if null { 0 } else { b'\n' },
            json,
            name,
            number: 0,
            keys,
        }))
    }
}

struct Lines {
    reader: Box<dyn BufRead + Send>,
    end: u8,
    json: bool,
    name: String,
    number: u64,
    keys: Keys,
}

impl Iterator for Lines {
    type Item = Result<NewItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            match self.reader.read_until(self.end, &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => {
                    let text = format!("cannot read {}: {error}", self.name);
                    return Some(Err(Error::disk(text)));
                }
            }
            self.number += 1;
            if line.last() == Some(&self.end) {
                line.pop();
            }
            if self.end == b'\n' && line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.is_empty() {
                continue;
            }
            return Some(self.item(line));
        }
    }
}

impl Lines {
    fn item(&mut self, line: Vec<u8>) -> Result<NewItem, Error> {
        let place = format!("{}, line {}", self.name, self.number);
        let text = String::from_utf8(line).map_err(|error| {
            let at = error.utf8_error().valid_up_to() + 1;
            Error::usage(format!("{place}: not UTF-8, at byte {at}")).hint(
                "items are texts; iconv -t UTF-8 writes them anew, and files can be named instead",
            )
        })?;
        item(json_of(&text, self.json, &place)?, self.keys.key(&text))
    }
}

fn json_of(text: &str, is_json: bool, place: &str) -> Result<Json, Error> {
    let json = if is_json {
        text.trim().to_owned()
    } else {
        serde_json::to_string(text).map_err(Error::usage)?
    };
    if json.len() > PAYLOAD_BYTES_MAX {
        let bytes = json.len();
        let text =
            format!("{place}: an item must be at most {PAYLOAD_BYTES_MAX} bytes, got {bytes}");
        return Err(Error::usage(text).hint("put large data into files, and their names here"));
    }
    RawValue::from_string(json).map(Arc::from).map_err(|error| {
        Error::usage(format!("{place}: not JSON: {error}"))
            .hint("with --json every line is a JSON value; without it every line is a text")
    })
}

fn item(payload: Json, key: Result<String, Error>) -> Result<NewItem, Error> {
    let mut item = NewItem::new(payload);
    item.key = Some(key?.parse().map_err(Error::usage)?);
    Ok(item)
}

/// Keys are the content and its n-th occurrence, so that a resumed run may read in another
/// order, and the same line twice is two items.
///
/// A line costs 10 to 31 bytes of memory here, for the hash by which a later equal one is found.
#[derive(Default)]
struct Keys {
    seen: HashSet<u64>,
    /// How often those came that came more than once.
    repeated: HashMap<u64, u32>,
}

impl Keys {
    fn key(&mut self, text: &str) -> Result<String, Error> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let count = if self.seen.insert(hash) {
            1
        } else {
            let count = self.repeated.entry(hash).or_insert(1);
            *count = count
                .checked_add(1)
                .ok_or_else(|| Error::usage(format!("the item {text:?} comes too often")))?;
            *count
        };
        let short = text.len() + 12 <= KEY_BYTES_MAX && !text.chars().any(char::is_control);
        Ok(if short {
            format!("{count}:{text}")
        } else {
            let hash = Sha256::digest(text.as_bytes());
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{count}:sha256:{hex}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn equal_lines_are_told_apart_by_their_number() {
        let mut keys = Keys::default();
        let got = ["a", "b", "a", "a", "b"].map(|line| keys.key(line).unwrap());
        assert_eq!(got, ["1:a", "1:b", "2:a", "3:a", "2:b"]);
    }
}
