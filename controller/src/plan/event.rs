//! What a Job's users are told.

/// An event on a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// How it is meant.
    pub kind: EventKind,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// How an event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It happened, and all is well.
    Normal,
    /// It happened, and somebody may have to act.
    Warning,
    /// A state that lasts: said when it begins, not in every sync.
    Waiting,
}

impl EventKind {
    /// Returns the type that Kubernetes shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning | Self::Waiting => "Warning",
        }
    }
}

impl Event {
    /// Returns an event of the type Normal.
    #[must_use]
    pub fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(EventKind::Normal, reason, message)
    }

    /// Returns an event of the type Warning.
    #[must_use]
    pub fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(EventKind::Warning, reason, message)
    }

    /// Returns an event about a state that lasts.
    #[must_use]
    pub fn waiting(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(EventKind::Waiting, reason, message)
    }

    fn new(kind: EventKind, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            message: message.into(),
        }
    }
}
