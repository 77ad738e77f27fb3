//! What stands around every handler: to log, to time, to count, to turn away.

use std::sync::Arc;

use gangline_protocol::Json;

use super::{Handler, Outcome};
use crate::item::Item;

/// What a wrap is around: the handler, or the next wrap.
pub struct Next(Handler);

impl Next {
    /// Runs it for an item.
    ///
    /// # Errors
    ///
    /// What the handler has failed with.
    pub async fn run(self, item: Item<Json>) -> Outcome {
        (self.0)(item).await
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Next")
    }
}

/// One wrap, with types erased.
#[derive(Clone)]
pub(super) struct Wrap(Arc<dyn Fn(Handler) -> Handler + Send + Sync>);

impl std::fmt::Debug for Wrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrap")
    }
}

impl Wrap {
    pub(super) fn new<F>(wrap: impl Fn(Item<Json>, Next) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let wrap = Arc::new(wrap);
        Self(Arc::new(move |handler| {
            let wrap = wrap.clone();
            Arc::new(move |item| {
                let (wrap, next) = (wrap.clone(), Next(handler.clone()));
                Box::pin(async move { wrap(item, next).await })
            })
        }))
    }

    /// Returns the handler with the wrap around it.
    pub(super) fn around(handler: Handler, wrap: Self) -> Handler {
        (wrap.0)(handler)
    }
}
