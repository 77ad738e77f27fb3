//! The kinds of patches.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::error::{ApiError, Result};
use super::strategic;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Operations of one JSON patch, as in Kubernetes.
const OPERATIONS_MAX: usize = 10_000;

/// A patch.
#[derive(Debug, Clone)]
pub(crate) enum Patch {
    Json(Vec<PatchOperation>),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    pub(crate) fn parse(content_type: &str, body: &[u8]) -> Result<Self> {
        let wrong = |error: serde_json::Error| {
            ApiError::bad_request(format!("error decoding patch: {error}"))
        };
        let object = || match serde_json::from_slice::<Value>(body).map_err(wrong)? {
            patch if patch.is_object() => Ok(patch),
            _ => Err(ApiError::bad_request(
                "error decoding patch: it is no JSON object",
            )),
        };
        match content_type {
            JSON => {
                let operations: Vec<PatchOperation> =
                    serde_json::from_slice(body).map_err(wrong)?;
                if operations.len() > OPERATIONS_MAX {
                    return Err(ApiError::too_large(OPERATIONS_MAX));
                }
                Ok(Self::Json(operations))
            }
            MERGE => Ok(Self::Merge(object()?)),
            STRATEGIC => Ok(Self::Strategic(object()?)),
            _ => Err(ApiError::unsupported_media_type(&[JSON, MERGE, STRATEGIC])),
        }
    }

    /// Changes `object` as the patch says.
    pub(crate) fn apply(&self, object: &mut Value) -> Result<()> {
        match self {
            Self::Json(operations) => {
                json_patch::patch(object, operations).map_err(|error| match error.kind {
                    PatchErrorKind::TestFailed => ApiError::unprocessable(format!(
                        "the server rejected our request due to an error in our request: testing value {} failed",
                        error.path
                    )),
                    _ => ApiError::unprocessable(format!(
                        "the server rejected our request due to an error in our request: {error}"
                    )),
                })
            }
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Self::Strategic(patch) => strategic::merge(object, patch).map_err(ApiError::bad_request),
        }
    }
}
