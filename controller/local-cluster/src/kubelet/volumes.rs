//! The volumes of a Pod: made in its directory before its first container starts, and where each container sees them.

mod content;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Pod, Volume, VolumeMount};

use super::environment::{Configs, Environment, Missing};
use super::supervisor::Mount;
pub(super) use content::wanted;
use content::{Content, File};

/// The variable that tells a program where its Pod's volumes are.
pub(super) const VARIABLE: &str = "GANGLINE_VOLUMES";

/// The volumes of a Pod.
pub(super) fn of(pod: &Pod) -> &[Volume] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default()
}

/// Where a Pod's volumes are, each by its name.
pub(super) fn directory(root: &Path, uid: &str) -> PathBuf {
    root.join(uid).join("volumes")
}

/// Where a program's view of the file system may be put together: a directory that stays empty.
pub(super) fn stage(root: &Path, uid: &str) -> PathBuf {
    root.join(uid).join("stage")
}

/// Whether a path names something inside the directory that it starts from.
pub(super) fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Makes the volumes that are not there yet. Those that are belong to the Pod and stay as its containers have left them.
pub(super) fn prepare(pod: &Pod, root: &Path, by: &str, configs: &Configs) -> Result<(), Missing> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let dir = directory(root, uid);
    for volume in of(pod) {
        let fail = |why: String| {
            format!(
                "MountVolume.SetUp failed for volume {:?} : {why}",
                volume.name
            )
        };
        let place = dir.join(&volume.name);
        if place.symlink_metadata().is_ok() {
            continue;
        }
        let content = content::of(volume, pod, configs).map_err(fail)?;
        // Made elsewhere first, so that one which is there is whole; containers that start at once may both do so.
        let fresh = dir.join(format!(".{by}.{}", volume.name));
        private_dir(&dir)
            .and_then(|()| private_dir(&stage(root, uid)))
            .and_then(|()| fill(&fresh, &content))
            .and_then(|()| match fs::rename(&fresh, &place) {
                Err(_) if place.symlink_metadata().is_ok() => clear(&fresh),
                done => done,
            })
            .map_err(|error| fail(error.to_string()))?;
    }
    Ok(())
}

/// Others have no way into the volumes but the mounts.
fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn clear(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn fill(fresh: &Path, content: &Content<'_>) -> io::Result<()> {
    clear(fresh)?;
    match content {
        Content::Host(host) => {
            find_host(host)?;
            symlink(&host.path, fresh)
        }
        Content::Empty => {
            fs::create_dir(fresh)?;
            // As Kubernetes makes it: whatever user the program becomes, it may write there.
            fs::set_permissions(fresh, Permissions::from_mode(0o777))
        }
        Content::Files(files) => {
            fs::create_dir(fresh)?;
            for (path, File { bytes, mode }) in files {
                let path = fresh.join(path);
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir)?;
                }
                fs::write(&path, bytes)?;
                fs::set_permissions(&path, Permissions::from_mode(*mode))?;
            }
            Ok(())
        }
    }
}

/// Makes or looks for what a hostPath names, as its type says.
fn find_host(host: &HostPathVolumeSource) -> io::Result<()> {
    let path = Path::new(&host.path);
    let type_ = host.type_.as_deref().unwrap_or_default();
    match type_ {
        "DirectoryOrCreate" => fs::create_dir_all(path)?,
        "FileOrCreate" if !path.exists() => fs::File::create(path).map(drop)?,
        _ => {}
    }
    let kind = path
        .metadata()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("hostPath {:?}: {error}", host.path))
        })?
        .file_type();
    let is = match type_ {
        "Directory" | "DirectoryOrCreate" => kind.is_dir(),
        "File" | "FileOrCreate" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        _ => true,
    };
    if is {
        return Ok(());
    }
    let what = format!("hostPath type check failed: {} is not a {type_}", host.path);
    Err(io::Error::other(what))
}

/// Where a container sees the volumes.
pub(super) fn mounts(
    pod: &Pod,
    container: &Container,
    root: &Path,
    env: &Environment,
) -> Result<Vec<Mount>, Missing> {
    let dir = directory(root, pod.metadata.uid.as_deref().unwrap_or_default());
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| {
            let volume = of(pod).iter().find(|volume| volume.name == mount.name);
            let read_only =
                mount.read_only == Some(true) || volume.is_some_and(content::is_read_only);
            Ok(Mount {
                source: source(&dir.join(&mount.name), mount, env)?,
                target: Path::new("/")
                    .join(&mount.mount_path)
                    .components()
                    .collect(),
                read_only,
            })
        })
        .collect()
}

fn source(volume: &Path, mount: &VolumeMount, env: &Environment) -> Result<PathBuf, Missing> {
    let whole = |error: io::Error| format!("volume {:?}: {error}", mount.name);
    let volume = fs::canonicalize(volume).map_err(whole)?;
    let path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(path), _) => env.expand(path),
        (None, Some(path)) => path.clone(),
        (None, None) => String::new(),
    };
    if path.is_empty() {
        return Ok(volume);
    }
    let outside = || format!("subPath {path:?} leads out of the volume {:?}", mount.name);
    if !is_inside(&path) {
        return Err(outside());
    }
    let inner = volume.join(&path);
    if inner.symlink_metadata().is_err() {
        fs::create_dir_all(&inner).map_err(whole)?;
    }
    // What a container has put there may be a link to anywhere.
    let inner = fs::canonicalize(inner).map_err(whole)?;
    if inner.starts_with(&volume) {
        Ok(inner)
    } else {
        Err(outside())
    }
}
