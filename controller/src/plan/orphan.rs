//! Finalizers of Pods that no Job counts any more.

use crate::api::OwnerReference;
use crate::api::names::{JOB_API_VERSION, JOB_KIND};

/// What is known about the Job that a Pod names as its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerJob<'job> {
    /// There is no Job of that name.
    Missing,
    /// There is one.
    Found {
        /// Its uid.
        uid: &'job str,
        /// Whether it is Complete or Failed.
        finished: bool,
        /// Whether another controller runs it.
        managed_elsewhere: bool,
    },
}

/// Tells whether the tracking finalizer of a Pod with this managing owner has lost its purpose.
#[must_use]
pub fn must_lose_finalizer(controller: Option<&OwnerReference>, job: OwnerJob<'_>) -> bool {
    let Some(owner) = controller else {
        return true;
    };
    if owner.kind != JOB_KIND || owner.api_version != JOB_API_VERSION {
        return false;
    }
    match job {
        OwnerJob::Missing => true,
        OwnerJob::Found {
            managed_elsewhere: true,
            ..
        } => false,
        OwnerJob::Found { uid, finished, .. } => uid != owner.uid || finished,
    }
}
