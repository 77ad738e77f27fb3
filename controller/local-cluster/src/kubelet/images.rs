//! What stands for the entrypoint of an image, since images are not pulled.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;
use serde::Deserialize;

/// What `docker run IMAGE` would run, as a command of this machine.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Stands for the image's `ENTRYPOINT`.
    pub command: Vec<String>,
    /// Stands for the image's `CMD`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment that the image brings; the container's own wins.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The table `images.toml`: images by name.
pub type Images = BTreeMap<String, Image>;

/// Why a table of images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// There is no such file, or it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in bytes.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

/// Reads the table `images.toml`.
///
/// # Errors
///
/// When it cannot be read, or is no such table.
pub fn read_images(path: &Path) -> Result<Images, ImagesError> {
    let text = fs::read(path).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let text = text.map_err(|source| ImagesError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|(at, message)| {
        let before = text.get(..at).unwrap_or(&text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        ImagesError::Content {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.len() - line_start + 1,
            message,
        }
    })
}

/// An error is where it is, in bytes, and what.
fn parse(text: &str) -> Result<Images, (usize, String)> {
    let parsed: Result<BTreeMap<String, toml::Spanned<Image>>, _> = toml::from_str(text);
    let table = parsed.map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().trim_end().replace('\n', ", "))
    })?;
    let checked = table.into_iter().map(|(name, entry)| {
        let at = entry.span().start;
        let image = entry.into_inner();
        if image.command.first().is_none_or(String::is_empty) {
            let what = format!("{name:?}: command must name a program of this machine");
            return Err((at, what));
        }
        Ok((name, image))
    });
    checked.collect()
}

/// The entry for an image: of its exact name, else of its name without tag and digest.
pub(super) fn find<'a>(images: &'a Images, name: &str) -> Option<&'a Image> {
    images.get(name).or_else(|| {
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        // A colon before the last slash is a registry's port.
        let from = name.rfind('/').map_or(0, |slash| slash + 1);
        let end = name
            .get(from..)?
            .find(':')
            .map_or(name.len(), |colon| from + colon);
        images.get(name.get(..end)?)
    })
}

/// The container's program and arguments, before expansion, by Kubernetes' rule: a command replaces the image's command and
/// arguments, arguments alone replace its arguments. `None` when there is no program.
pub(super) fn argv(container: &Container, images: &Images) -> Option<Vec<String>> {
    let own = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    let args = own(&container.args);
    if let Some(command) = own(&container.command) {
        return Some([command, args.unwrap_or_default()].concat());
    }
    let image = find(images, container.image.as_deref()?)?;
    let argv = [
        image.command.clone(),
        args.unwrap_or_else(|| image.args.clone()),
    ]
    .concat();
    (!argv.is_empty()).then_some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str, at: &str, needle: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.toml");
        fs::write(&path, text).unwrap();
        let error = read_images(&path).unwrap_err().to_string();
        let wanted = format!("{}:{at}: ", path.display());
        let message = error.strip_prefix(&wanted);
        let message = message.unwrap_or_else(|| panic!("{error} does not begin with {wanted}"));
        assert!(message.contains(needle), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_table_is_read_with_all_that_it_may_say() {
        let text = "[perl]\ncommand = ['perl']\nargs = ['-v']\nenv = { A = 'b' }\n\
                    [\"localhost:5000/team/tool:2\"]\ncommand = ['tool']\n";
        let table = parse(text).unwrap();
        let perl = Image {
            command: vec!["perl".to_owned()],
            args: vec!["-v".to_owned()],
            env: [("A".to_owned(), "b".to_owned())].into(),
        };
        assert_eq!(table.get("perl"), Some(&perl));
        assert!(table.contains_key("localhost:5000/team/tool:2"));
        assert_eq!(parse("").unwrap(), Images::new());
    }

    #[test]
    fn what_is_wrong_in_a_table_is_told_with_its_line() {
        let perl = "# Mine.\n[perl]\n";
        check_refused(
            &format!("{perl}comand = ['perl']\n"),
            "3:1",
            "unknown field `comand`",
        );
        check_refused(
            &format!("{perl}args = ['x']\n"),
            "2:1",
            "missing field `command`",
        );
        check_refused(
            &format!("{perl}command = 'perl'\n"),
            "3:11",
            "expected a sequence",
        );
        check_refused(
            &format!("{perl}command = ['perl', 5]\n"),
            "3:20",
            "expected a string",
        );
        check_refused(
            &format!("{perl}command = ['p']\nenv.A = 1\n"),
            "4:9",
            "expected a string",
        );
        check_refused(
            &format!("{perl}command = []\n"),
            "2:1",
            "\"perl\": command must name",
        );
        check_refused(
            &format!("{perl}command = ['']\n"),
            "2:1",
            "\"perl\": command must name",
        );
        check_refused("perl = 'perl'\n", "1:8", "invalid type: string");
        check_refused(&format!("{perl}command = [\n"), "3:12", "unclosed array");
        check_refused(
            &format!("{perl}command = ['a']\n[perl]\n"),
            "4:2",
            "duplicate key",
        );
        check_refused("é = '\n", "1:1", "unquoted key");
    }

    #[test]
    fn a_table_that_cannot_be_read_is_told_with_its_path() {
        let error = read_images(Path::new("/no/such/images.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /no/such/images.toml");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latin.toml");
        fs::write(&path, b"\xe9 = 1\n").unwrap();
        assert!(matches!(read_images(&path), Err(ImagesError::Read { .. })));
    }

    fn table() -> Images {
        let image = |command: &str| Image {
            command: vec![command.to_owned()],
            args: vec!["default".to_owned()],
            env: BTreeMap::new(),
        };
        [
            ("localhost:5000/team/tool", "tool"),
            ("perl:5.34", "perl5"),
            ("perl", "perl"),
        ]
        .map(|(name, command)| (name.to_owned(), image(command)))
        .into()
    }

    #[track_caller]
    fn check(image: &str, command: &[&str], args: &[&str], wanted: Option<&[&str]>) {
        let list = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        let container = Container {
            image: Some(image.to_owned()),
            command: list(command),
            args: list(args),
            ..Container::default()
        };
        assert_eq!(argv(&container, &table()), wanted.and_then(list));
    }

    #[test]
    fn command_and_args_replace_those_of_the_image_as_kubernetes_has_it() {
        check("perl", &[], &[], Some(&["perl", "default"]));
        check("perl", &[], &["a"], Some(&["perl", "a"]));
        check("perl", &["sh"], &[], Some(&["sh"]));
        check("perl", &["sh"], &["a"], Some(&["sh", "a"]));
        check("unknown", &["sh"], &[], Some(&["sh"]));
        check("unknown", &[], &["a"], None);
    }

    #[test]
    fn an_image_is_found_by_its_exact_name_or_without_tag_and_digest() {
        check("perl:5.34", &[], &[], Some(&["perl5", "default"]));
        check("perl:5.36", &[], &[], Some(&["perl", "default"]));
        check("perl@sha256:00", &[], &[], Some(&["perl", "default"]));
        check(
            "localhost:5000/team/tool:1@sha256:00",
            &[],
            &[],
            Some(&["tool", "default"]),
        );
        check("localhost:5000/team", &[], &[], None);
    }
}
