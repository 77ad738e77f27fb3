//! Annotations, labels, finalizers and variables that are visible on the wire.

/// The finalizer that keeps a finished Pod until it has been counted.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The completion index of a Pod: annotation and label.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index of a Pod had failed when the Pod was made.
pub const INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that the failure policy ignores.
pub const INDEX_IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// The environment variable that holds a Pod's completion index.
pub const COMPLETION_INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// The value of `spec.managedBy` that means the cluster's own Job controller.
pub const BUILT_IN_CONTROLLER: &str = "kubernetes.io/job-controller";
/// The value of `spec.managedBy` that means this controller.
pub const GANGLINE_CONTROLLER: &str = "gangline.dev/controller";
/// `apiVersion` of Jobs.
pub const JOB_API_VERSION: &str = "batch/v1";
/// `kind` of Jobs.
pub const JOB_KIND: &str = "Job";
/// The Pod condition of a Pod that was disrupted, not at fault.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The queue that a Job's workers empty.
pub const QUEUE: &str = "gangline.dev/queue";
/// What the queue is filled with.
pub const QUEUE_ITEMS: &str = "gangline.dev/items";
/// What the first Pod that exits 0 before its queue is over means.
pub const FIRST_SUCCESS: &str = "gangline.dev/first-success";
/// How long Pods may take to leave once the queue is over.
pub const DRAIN_SECONDS: &str = "gangline.dev/drain-seconds";
/// How many dead items a successful Job may have.
pub const MAX_DEAD_ITEMS: &str = "gangline.dev/max-dead-items";
/// At how many dead items the queue is stopped.
pub const STOP_AT_DEAD_ITEMS: &str = "gangline.dev/stop-at-dead-items";
/// Whether there are at most as many Pods as items left.
pub const SCALE_TO_ITEMS: &str = "gangline.dev/scale-to-items";
/// How long a Pod that is not needed may hold nothing.
pub const IDLE_SECONDS: &str = "gangline.dev/idle-seconds";
/// Whether the container's command is run by `gangline work`.
pub const WRAP: &str = "gangline.dev/wrap";
/// The uid of the queue that the Job has seen first; written by the controller.
pub const QUEUE_UID: &str = "gangline.dev/queue-uid";
/// How far the queue has come, for people; written by the controller.
pub const PROGRESS: &str = "gangline.dev/progress";

/// What the names of Gangline's annotations begin with.
pub const ANNOTATION_PREFIX: &str = "gangline.dev/";
/// The annotations of a Job that say something about its queue.
pub const QUEUE_SETTINGS: [&str; 8] = [
    QUEUE_ITEMS,
    FIRST_SUCCESS,
    DRAIN_SECONDS,
    MAX_DEAD_ITEMS,
    STOP_AT_DEAD_ITEMS,
    SCALE_TO_ITEMS,
    IDLE_SECONDS,
    WRAP,
];

/// Where workers find the queue service.
pub const ENV_URL: &str = "GANGLINE_URL";
/// The queue, as workers name it.
pub const ENV_QUEUE: &str = "GANGLINE_QUEUE";
/// The token that workers show.
pub const ENV_TOKEN: &str = "GANGLINE_TOKEN";
/// The worker's name: `<pod uid>.<container>`.
pub const ENV_WORKER: &str = "GANGLINE_WORKER";
/// How long a worker has between SIGTERM and SIGKILL.
pub const ENV_GRACE_SECONDS: &str = "GANGLINE_GRACE_SECONDS";
