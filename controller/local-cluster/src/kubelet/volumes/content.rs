//! What a volume holds at first. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Volume, VolumeProjection,
};

use super::is_inside;
use crate::kubelet::environment::{Configs, Missing, field, resource};
use crate::kubelet::{ConfigData, ConfigKind};

/// Kubernetes' default for files that come from objects.
const MODE: i32 = 0o644;

/// What a volume is.
pub(super) enum Content<'a> {
    Empty,
    /// Files by their paths in it.
    Files(BTreeMap<String, File>),
    /// A place on this machine.
    Host(&'a HostPathVolumeSource),
}

/// A file of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

/// Config maps and secrets that the volume comes from.
pub(in crate::kubelet) fn wanted(volume: &Volume) -> Vec<(ConfigKind, &String)> {
    let mut wanted = Vec::new();
    wanted.extend(
        volume
            .config_map
            .as_ref()
            .map(|of| (ConfigKind::ConfigMap, &of.name)),
    );
    let secret = volume
        .secret
        .as_ref()
        .and_then(|of| of.secret_name.as_ref());
    wanted.extend(secret.map(|name| (ConfigKind::Secret, name)));
    for source in projections(volume) {
        wanted.extend(
            source
                .config_map
                .as_ref()
                .map(|of| (ConfigKind::ConfigMap, &of.name)),
        );
        wanted.extend(
            source
                .secret
                .as_ref()
                .map(|of| (ConfigKind::Secret, &of.name)),
        );
    }
    wanted
}

fn projections(volume: &Volume) -> &[VolumeProjection] {
    let projected = volume.projected.as_ref();
    projected
        .and_then(|projected| projected.sources.as_deref())
        .unwrap_or_default()
}

/// Whether containers cannot write to it, whatever they say.
pub(super) fn is_read_only(volume: &Volume) -> bool {
    volume.empty_dir.is_none() && volume.host_path.is_none()
}

/// What the volume holds; an error says what it waits for.
pub(super) fn of<'a>(
    volume: &'a Volume,
    pod: &Pod,
    configs: &Configs,
) -> Result<Content<'a>, Missing> {
    if let Some(host) = &volume.host_path {
        return Ok(Content::Host(host));
    }
    let mut files = Files {
        pod,
        configs,
        mode: MODE,
        files: BTreeMap::new(),
    };
    if let Some(map) = &volume.config_map {
        files.mode = map.default_mode.unwrap_or(MODE);
        files.add_config(
            ConfigKind::ConfigMap,
            &map.name,
            map.items.as_deref(),
            map.optional,
        )?;
    } else if let Some(secret) = &volume.secret {
        files.mode = secret.default_mode.unwrap_or(MODE);
        let name = secret.secret_name.as_deref().unwrap_or_default();
        files.add_config(
            ConfigKind::Secret,
            name,
            secret.items.as_deref(),
            secret.optional,
        )?;
    } else if let Some(downward) = &volume.downward_api {
        files.mode = downward.default_mode.unwrap_or(MODE);
        files.add_fields(downward.items.as_deref())?;
    } else if let Some(projected) = &volume.projected {
        files.mode = projected.default_mode.unwrap_or(MODE);
        for source in projections(volume) {
            if let Some(map) = &source.config_map {
                let items = map.items.as_deref();
                files.add_config(ConfigKind::ConfigMap, &map.name, items, map.optional)?;
            }
            if let Some(secret) = &source.secret {
                let items = secret.items.as_deref();
                files.add_config(ConfigKind::Secret, &secret.name, items, secret.optional)?;
            }
            if let Some(downward) = &source.downward_api {
                files.add_fields(downward.items.as_deref())?;
            }
        }
    } else {
        return Ok(Content::Empty);
    }
    Ok(Content::Files(files.files))
}

struct Files<'a> {
    pod: &'a Pod,
    configs: &'a Configs,
    /// Of files that name none.
    mode: i32,
    files: BTreeMap<String, File>,
}

impl Files<'_> {
    fn add(&mut self, path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<(), Missing> {
        if !is_inside(path) {
            return Err(format!("path {path:?} leads out of the volume"));
        }
        let mode = u32::try_from(mode.unwrap_or(self.mode)).unwrap_or(0) & 0o777;
        self.files.insert(path.to_owned(), File { bytes, mode });
        Ok(())
    }

    /// All of a config map or secret, or the items that are named.
    fn add_config(
        &mut self,
        kind: ConfigKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), Missing> {
        let optional = optional == Some(true);
        let found: Option<&ConfigData> = self
            .configs
            .get(&(kind, name.to_owned()))
            .and_then(Option::as_ref);
        let data = match found {
            Some(data) => data,
            None if optional => return Ok(()),
            None => return Err(format!("{kind} {name:?} not found")),
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, value) in data {
                self.add(key, value.clone(), None)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(value) => self.add(&item.path, value.clone(), item.mode)?,
                None if optional => {}
                None => return Err(format!("{kind} {name:?} has no key {:?}", item.key)),
            }
        }
        Ok(())
    }

    fn add_fields(&mut self, items: Option<&[DownwardAPIVolumeFile]>) -> Result<(), Missing> {
        for item in items.unwrap_or_default() {
            let value = if let Some(selector) = &item.field_ref {
                let meta = &self.pod.metadata;
                match selector.field_path.as_str() {
                    "metadata.labels" => pairs(meta.labels.as_ref()),
                    "metadata.annotations" => pairs(meta.annotations.as_ref()),
                    _ => field(self.pod, selector)?,
                }
            } else if let Some(selector) = &item.resource_field_ref {
                resource(self.pod, None, selector)?
            } else {
                String::new()
            };
            self.add(&item.path, value.into_bytes(), item.mode)?;
        }
        Ok(())
    }
}

/// A map as the downward API writes it into a file.
fn pairs(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}
