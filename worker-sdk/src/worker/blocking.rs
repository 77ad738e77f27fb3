//! Threads for handlers that block: as many as run at a time, each used again and again.
//!
//! They are none of the runtime's, which at its end would wait for all of its own: a handler that
//! heeds nothing does not keep the program from ending.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::handling::panic_text;
use super::{Handler, as_json};
use crate::item::{HandlerError, Item};

/// Runs a handler; what it returns tells the outcome.
type Job = Box<dyn FnOnce() -> Tell + Send>;
type Tell = Box<dyn FnOnce() + Send>;

/// A job for a thread, and the way to the same thread: the thread itself keeps none, or it would
/// never hear that nobody else has one.
struct Order {
    job: Job,
    thread: Sender<Self>,
}

/// The threads that have nothing to do. When it goes, they end.
#[derive(Debug, Default)]
struct Idle(Mutex<Vec<Sender<Order>>>);

/// Returns the handler that runs `handler` on a thread.
pub(super) fn handler_of<T, R, E, H>(handler: H) -> Handler
where
    T: DeserializeOwned + Send + 'static,
    R: Serialize,
    E: Into<HandlerError>,
    H: Fn(Item<T>) -> Result<R, E> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let idle = Arc::new(Idle::default());
    Arc::new(move |item| {
        let (handler, idle) = (handler.clone(), idle.clone());
        Box::pin(async move {
            let item = item.parse()?;
            let (answer, outcome) = oneshot::channel();
            let job: Job = Box::new(move || {
                let work = || as_json(handler(item));
                let caught = std::panic::catch_unwind(AssertUnwindSafe(work));
                let outcome = caught.unwrap_or_else(|panic| Err(panic_text(&*panic).into()));
                // Nobody waits for what was given up.
                Box::new(move || drop(answer.send(outcome)))
            });
            run(&idle, job).map_err(|error| format!("cannot start a thread: {error}"))?;
            outcome
                .await
                .map_err(|_| "the handler's thread has ended")?
        })
    })
}

/// Runs a job on a thread that has nothing to do, or on a new one.
fn run(idle: &Arc<Idle>, job: Job) -> std::io::Result<()> {
    let free = idle.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let thread = match free {
        Some(thread) => thread,
        None => start(idle)?,
    };
    let order = Order {
        job,
        thread: thread.clone(),
    };
    let sent = thread.send(order);
    sent.map_err(|_| std::io::Error::other("it has ended"))
}

fn start(idle: &Arc<Idle>) -> std::io::Result<Sender<Order>> {
    let (send, orders) = channel();
    let idle = Arc::downgrade(idle);
    std::thread::Builder::new()
        .name("handler".into())
        .spawn(move || serve(&orders, &idle))?;
    Ok(send)
}

fn serve(orders: &Receiver<Order>, idle: &Weak<Idle>) {
    while let Ok(Order { job, thread }) = orders.recv() {
        let tell = job();
        // Before it is told, or the next handler would start another thread.
        if let Some(idle) = idle.upgrade() {
            let mut idle = idle.0.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(thread);
        }
        tell();
    }
}
