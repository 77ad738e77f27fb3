//! The views of Jobs and Pods as resources of the Kubernetes API.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;

use crate::api::{Job, ObjectMeta, Pod};

macro_rules! resource {
    ($view:ty, $group:literal, $kind:literal, $plural:literal) => {
        impl Resource for $view {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Job, "batch", "Job", "jobs");
resource!(Pod, "", "Pod", "pods");

impl kube::api::Log for Pod {}
