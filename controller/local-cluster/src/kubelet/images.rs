//! What stands for the entrypoint of an image, since images are not pulled. Pure.

use std::collections::BTreeMap;

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
