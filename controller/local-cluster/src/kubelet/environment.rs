//! The environment of a container: what its Pod says, with every reference resolved. Pure, but for [`gather`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

use k8s_openapi::api::core::v1::{
    Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector,
};

use super::expansion::expand;
use super::status::containers;
use super::{ConfigData, ConfigKind, PodApi, quantity, volumes};

/// The address of every Pod and of the node: processes share the machine's network.
pub(super) const HOST_IP: &str = "127.0.0.1";

/// Config maps and secrets by kind and name; `None` for one that does not exist.
pub(super) type Configs = BTreeMap<(ConfigKind, String), Option<ConfigData>>;

/// Why a container cannot be started yet: what it refers to is not there.
pub(super) type Missing = String;

/// Asks the API for every config map and secret that the container's environment and the Pod's volumes name.
pub(super) async fn gather(
    api: &dyn PodApi,
    pod: &Pod,
    container: &Container,
) -> io::Result<Configs> {
    let mut wanted: Vec<_> = volumes::of(pod).iter().flat_map(volumes::wanted).collect();
    for source in container.env_from.iter().flatten() {
        wanted.extend(
            source
                .config_map_ref
                .as_ref()
                .map(|r| (ConfigKind::ConfigMap, &r.name)),
        );
        wanted.extend(
            source
                .secret_ref
                .as_ref()
                .map(|r| (ConfigKind::Secret, &r.name)),
        );
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref())
    {
        let (map, secret) = (&source.config_map_key_ref, &source.secret_key_ref);
        wanted.extend(map.as_ref().map(|r| (ConfigKind::ConfigMap, &r.name)));
        wanted.extend(secret.as_ref().map(|r| (ConfigKind::Secret, &r.name)));
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut configs = Configs::new();
    for (kind, name) in wanted {
        if let Entry::Vacant(entry) = configs.entry((kind, name.clone())) {
            entry.insert(api.config(namespace, kind, name).await?);
        }
    }
    Ok(configs)
}

/// Everything that a container's environment comes from.
pub(super) struct Sources<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    /// What the image's entry in the table brings.
    pub(super) image: BTreeMap<String, String>,
    /// `NAME_SERVICE_HOST` and the like.
    pub(super) services: Vec<(String, String)>,
    pub(super) configs: &'a Configs,
}

/// A container's environment, to be handed to it and to expand its command with.
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Resolves it in Kubernetes' order: the Pod's `env` wins over `envFrom`, which wins over services and the image; a
    /// reference sees what stands before it.
    pub(super) fn new(sources: Sources<'_>) -> Result<Self, Missing> {
        let Sources {
            pod,
            container,
            image,
            services,
            configs,
        } = sources;
        let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.as_ref());
        let hostname = hostname
            .or(pod.metadata.name.as_ref())
            .cloned()
            .unwrap_or_default();
        let mut env = Self(image);
        env.0.insert("HOSTNAME".to_owned(), hostname);
        env.0.extend(services);
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            if let Some(map) = &source.config_map_ref {
                env.extend(
                    prefix,
                    ConfigKind::ConfigMap,
                    &map.name,
                    map.optional,
                    configs,
                )?;
            }
            if let Some(secret) = &source.secret_ref {
                env.extend(
                    prefix,
                    ConfigKind::Secret,
                    &secret.name,
                    secret.optional,
                    configs,
                )?;
            }
        }
        for var in container.env.iter().flatten() {
            let value = match (&var.value_from, var.value.as_deref().unwrap_or_default()) {
                (Some(source), "") => resolve(source, pod, container, configs)?,
                (_, value) => Some(env.expand(value)),
            };
            if let Some(value) = value {
                env.0.insert(var.name.clone(), value);
            }
        }
        Ok(env)
    }

    fn extend(
        &mut self,
        prefix: &str,
        kind: ConfigKind,
        name: &str,
        optional: Option<bool>,
        configs: &Configs,
    ) -> Result<(), Missing> {
        let Some(data) = configs
            .get(&(kind, name.to_owned()))
            .and_then(Option::as_ref)
        else {
            return not_found::<()>(kind, name, optional).map(|_| ());
        };
        let pairs = data
            .iter()
            .map(|(key, value)| (format!("{prefix}{key}"), text(value)));
        self.0
            .extend(pairs.filter(|(key, _)| !key.contains(['=', '\0'])));
        Ok(())
    }

    /// The text with its references to this environment replaced.
    pub(super) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.0.get(name).cloned())
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0.into_iter().collect()
    }
}

fn not_found<T>(
    kind: ConfigKind,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<T>, Missing> {
    if optional == Some(true) {
        Ok(None)
    } else {
        Err(format!("{kind} {name:?} not found"))
    }
}

/// Values need not be text in a secret; a process's environment is bytes without NUL, and JSON hands it over.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// The value that a reference stands for; `None` when it is optional and there is none.
fn resolve(
    source: &EnvVarSource,
    pod: &Pod,
    container: &Container,
    configs: &Configs,
) -> Result<Option<String>, Missing> {
    if let Some(field) = &source.field_ref {
        return self::field(pod, field).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return self::resource(pod, Some(container), resource).map(Some);
    }
    let (kind, name, key, optional) = if let Some(map) = &source.config_map_key_ref {
        (ConfigKind::ConfigMap, &map.name, &map.key, map.optional)
    } else if let Some(secret) = &source.secret_key_ref {
        (
            ConfigKind::Secret,
            &secret.name,
            &secret.key,
            secret.optional,
        )
    } else {
        return Ok(Some(String::new()));
    };
    let Some(data) = configs.get(&(kind, name.clone())).and_then(Option::as_ref) else {
        return not_found(kind, name, optional);
    };
    match data.get(key) {
        Some(value) => Ok(Some(text(value))),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {name:?}")),
    }
}

/// A resource of the container that the selector names, or else of `own`.
pub(super) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, Missing> {
    let named = selector.container_name.as_deref();
    let (init, main) = containers(pod);
    let found = named.and_then(|name| main.iter().chain(init).find(|other| other.name == name));
    let of = found.or(own).ok_or_else(|| {
        let name = named.unwrap_or_default();
        format!("resourceFieldRef: there is no container {name:?}")
    })?;
    let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str());
    quantity::field(of, &selector.resource, divisor)
}

/// A field of the Pod by its path, as the downward API has it.
pub(super) fn field(pod: &Pod, selector: &ObjectFieldSelector) -> Result<String, Missing> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    let path = selector.field_path.as_str();
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" | "status.podIP" | "status.podIPs" => {
            Some(HOST_IP.to_owned())
        }
        _ => {
            let keyed = |map: &str| {
                path.strip_prefix(map)?
                    .strip_prefix("['")?
                    .strip_suffix("']")
            };
            let (key, of) = match (keyed("metadata.labels"), keyed("metadata.annotations")) {
                (Some(key), _) => (key, &meta.labels),
                (_, Some(key)) => (key, &meta.annotations),
                _ => return Err(format!("unsupported fieldPath: {path}")),
            };
            of.as_ref().and_then(|map| map.get(key).cloned())
        }
    };
    Ok(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn configs() -> Configs {
        let data = |pairs: &[(&str, &str)]| {
            let bytes = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()));
            Some(bytes.collect::<BTreeMap<_, _>>())
        };
        [
            (
                (ConfigKind::ConfigMap, "map".to_owned()),
                data(&[("A", "map-a"), ("B", "map-b")]),
            ),
            (
                (ConfigKind::Secret, "secret".to_owned()),
                data(&[("A", "secret-a")]),
            ),
            ((ConfigKind::ConfigMap, "gone".to_owned()), None),
        ]
        .into()
    }

    fn build(container: Value) -> Result<Vec<(String, String)>, Missing> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"l/x": "1"}, "annotations": {"a": "2"}},
            "spec": {"nodeName": "here", "serviceAccountName": "robot", "containers": []},
        }))
        .unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let sources = Sources {
            pod: &pod,
            container: &container,
            image: [("FROM".to_owned(), "image".to_owned())].into(),
            services: vec![("WEB_SERVICE_PORT".to_owned(), "80".to_owned())],
            configs: &configs(),
        };
        Environment::new(sources).map(Environment::into_pairs)
    }

    #[track_caller]
    fn check(env: Value, from: Value, wanted: &[(&str, &str)]) {
        let all = build(json!({"name": "c", "env": env, "envFrom": from})).unwrap();
        let ours = |(key, _): &(String, String)| {
            !matches!(key.as_str(), "HOSTNAME" | "FROM" | "WEB_SERVICE_PORT")
        };
        let all: Vec<_> = all.into_iter().filter(ours).collect();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(all, wanted);
    }

    #[test]
    fn values_see_what_stands_before_them() {
        check(
            json!([{"name": "A", "value": "1$(B)"}, {"name": "B", "value": "$(A)2"}, {"name": "C", "value": "$$(A) $(WEB_SERVICE_PORT) $(FROM)"}]),
            json!([]),
            &[("A", "1$(B)"), ("B", "1$(B)2"), ("C", "$(A) 80 image")],
        );
    }

    #[test]
    fn fields_of_the_pod_are_named_by_their_path() {
        let var = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        check(
            json!([
                var("A", "metadata.name"),
                var("B", "metadata.namespace"),
                var("C", "metadata.uid"),
                var("D", "metadata.labels['l/x']"),
                var("E", "metadata.annotations['a']"),
                var("F", "metadata.labels['none']"),
                var("G", "spec.nodeName"),
                var("H", "spec.serviceAccountName"),
                var("I", "status.podIP"),
                var("J", "status.hostIP"),
            ]),
            json!([]),
            &[
                ("A", "p"),
                ("B", "n"),
                ("C", "u"),
                ("D", "1"),
                ("E", "2"),
                ("F", ""),
                ("G", "here"),
                ("H", "robot"),
                ("I", "127.0.0.1"),
                ("J", "127.0.0.1"),
            ],
        );
        let wrong = json!({"name": "c", "env": [var("A", "spec.priority")]});
        assert_eq!(
            build(wrong).unwrap_err(),
            "unsupported fieldPath: spec.priority"
        );
    }

    #[test]
    fn config_maps_and_secrets_give_single_keys_and_whole_maps() {
        check(
            json!([
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "A"}}},
                {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "none", "optional": true}}},
                {"name": "Y", "value": "$(B) $(P_A)"},
            ]),
            json!([
                {"configMapRef": {"name": "map"}}, {"prefix": "P_", "secretRef": {"name": "secret"}},
                {"configMapRef": {"name": "gone", "optional": true}},
            ]),
            &[
                ("A", "secret-a"),
                ("B", "map-b"),
                ("P_A", "secret-a"),
                ("Y", "map-b secret-a"),
            ],
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "Z"}}}]});
        assert_eq!(
            build(key).unwrap_err(),
            "couldn't find key Z in configmap \"map\""
        );
        let map = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]});
        assert_eq!(build(map).unwrap_err(), "configmap \"gone\" not found");
    }

    #[test]
    fn resources_are_given_in_units_of_the_divisor() {
        let var = |name: &str, resource: &str, divisor: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}});
        let container = json!({"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}},
            "env": [var("A", "limits.cpu", "0"), var("B", "limits.memory", "1Mi"), var("C", "requests.cpu", "1m"), var("D", "limits.memory", "1")]});
        let env: BTreeMap<_, _> = build(container).unwrap().into_iter().collect();
        for (name, value) in [("A", "2"), ("B", "64"), ("C", "250"), ("D", "67108864")] {
            assert_eq!(env[name], value);
        }
    }
}
