//! What happens in a walk.

use gangline_protocol::NewItem;
use proptest::prelude::*;

use super::super::world::{item, json};

pub(super) const WORKERS: usize = 4;
pub(super) const STREAM_LINES: u64 = 12;

#[derive(Debug, Clone)]
pub(super) enum Move {
    Push {
        queue: u8,
        items: Vec<Draft>,
        seal: bool,
    },
    Batch {
        queue: u8,
        key: u8,
        body: u8,
        items: Vec<Draft>,
        seal: bool,
    },
    Chunk {
        queue: u8,
        key: u8,
        before: Option<u8>,
        lines: u8,
        other: bool,
        last: bool,
    },
    Exchange {
        worker: u8,
        parts: Parts,
    },
    Opens {
        worker: u8,
        max: u8,
    },
    Revoke {
        worker: u8,
        counted: bool,
    },
    Control {
        queue: u8,
        control: Control,
    },
    Cancel {
        queue: u8,
        id: u8,
    },
    Redrive {
        queue: u8,
        max: u8,
        ids: Option<Vec<u8>>,
    },
    Configure {
        queue: u8,
        what: u8,
        value: u8,
    },
    Tick,
    Pass {
        ms: u16,
    },
    Jump {
        ms: u32,
    },
    Back {
        ms: u16,
    },
    Restart {
        from_snapshot: bool,
    },
    Repeat {
        back: u8,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Pause(bool),
    Seal,
    Stop(bool),
    Delete,
}

#[derive(Debug, Clone)]
pub(super) struct Draft {
    key: u8,
    priority: Option<u8>,
    delay_ms: Option<u64>,
    time_limit_ms: Option<u64>,
    max_attempts: Option<u16>,
}

/// Which parts an exchange has.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) settles: Vec<End>,
    pub(super) started: Option<u8>,
    pub(super) progress: Option<u8>,
    pub(super) heartbeat: bool,
    pub(super) lease: Option<(u8, Option<u8>, u16)>,
    pub(super) leave: bool,
    /// Which session and uid it names: its own, none, or another's.
    pub(super) named: u8,
}

#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) which: u8,
    pub(super) outcome: u8,
    pub(super) spawn: Vec<Draft>,
    pub(super) delay_ms: Option<u64>,
    pub(super) stop: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let delay = prop_oneof![4 => Just(None), 1 => (0_u64..20_000).prop_map(Some)];
    let limit = prop_oneof![4 => Just(None), 1 => (1_u64..20_000).prop_map(Some)];
    let attempts = prop_oneof![4 => Just(None), 1 => (1_u16..4).prop_map(Some)];
    (0_u8..24, prop::option::of(3_u8..8), delay, limit, attempts).prop_map(
        |(key, priority, delay_ms, time_limit_ms, max_attempts)| Draft {
            key,
            priority,
            delay_ms,
            time_limit_ms,
            max_attempts,
        },
    )
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    prop::collection::vec(draft(), 0..6)
}

fn end() -> impl Strategy<Value = End> {
    let spawn = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(draft(), 1..3)];
    let delay = prop_oneof![2 => Just(None), 1 => (0_u64..9_000).prop_map(Some)];
    (
        any::<u8>(),
        0_u8..8,
        spawn,
        delay,
        prop::bool::weighted(0.01),
    )
        .prop_map(|(which, outcome, spawn, delay_ms, stop)| End {
            which,
            outcome,
            spawn,
            delay_ms,
            stop,
        })
}

fn parts() -> impl Strategy<Value = Parts> {
    let settles = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(end(), 1..4)];
    let lease = (
        0_u8..5,
        prop::option::of(0_u8..3),
        prop_oneof![Just(0), 0_u16..30_000],
    );
    let lease = prop::option::weighted(0.6, lease);
    let leave = prop::bool::weighted(0.04);
    (
        settles,
        prop::option::of(any::<u8>()),
        prop::option::of(any::<u8>()),
        any::<bool>(),
        lease,
        leave,
        0_u8..30,
    )
        .prop_map(
            |(settles, started, progress, heartbeat, lease, leave, named)| Parts {
                settles,
                started,
                progress,
                heartbeat,
                lease,
                leave,
                named,
            },
        )
}

pub(super) fn moves() -> impl Strategy<Value = Move> {
    let queue = 0_u8..2;
    let worker = 0..2 * WORKERS as u8;
    let control = prop_oneof![
        6 => prop::bool::weighted(0.4).prop_map(Control::Pause),
        3 => Just(Control::Seal),
        1 => any::<bool>().prop_map(Control::Stop),
        1 => Just(Control::Delete),
    ];
    prop_oneof![
        5 => (queue.clone(), drafts(), prop::bool::weighted(0.03))
            .prop_map(|(queue, items, seal)| Move::Push { queue, items, seal }),
        1 => (queue.clone(), 0_u8..3, 0_u8..4, drafts(), prop::bool::weighted(0.03)).prop_map(
            |(queue, key, body, items, seal)| Move::Batch { queue, key, body, items, seal }
        ),
        3 => (
            queue.clone(),
            0_u8..3,
            prop::option::weighted(0.3, 0..STREAM_LINES as u8),
            0_u8..5,
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.2),
        )
            .prop_map(|(queue, key, before, lines, other, last)| {
                Move::Chunk { queue, key, before, lines, other, last }
            }),
        25 => (worker.clone(), parts())
            .prop_map(|(worker, parts)| Move::Exchange { worker, parts }),
        3 => (worker.clone(), 0_u8..4).prop_map(|(worker, max)| Move::Opens { worker, max }),
        2 => (worker, any::<bool>())
            .prop_map(|(worker, counted)| Move::Revoke { worker, counted }),
        2 => (queue.clone(), control).prop_map(|(queue, control)| Move::Control { queue, control }),
        1 => (queue.clone(), any::<u8>()).prop_map(|(queue, id)| Move::Cancel { queue, id }),
        2 => (queue.clone(), 0_u8..4, prop::option::of(prop::collection::vec(0_u8..30, 0..20)))
            .prop_map(|(queue, max, ids)| Move::Redrive { queue, max, ids }),
        2 => (queue, 0_u8..9, any::<u8>())
            .prop_map(|(queue, what, value)| Move::Configure { queue, what, value }),
        1 => Just(Move::Tick),
        6 => (0_u16..20_000).prop_map(|ms| Move::Pass { ms }),
        1 => (0_u32..100_000_000).prop_map(|ms| Move::Jump { ms }),
        1 => any::<u16>().prop_map(|ms| Move::Back { ms }),
        1 => any::<bool>().prop_map(|from_snapshot| Move::Restart { from_snapshot }),
        8 => any::<u8>().prop_map(|back| Move::Repeat { back }),
    ]
}

impl Draft {
    fn item(&self) -> NewItem {
        let key = if self.key < 12 {
            format!("k{}", self.key)
        } else {
            String::new()
        };
        NewItem {
            payload: json(&format!("[{}]", self.key)),
            priority: self.priority,
            delay_ms: self.delay_ms,
            time_limit_ms: self.time_limit_ms,
            max_attempts: self.max_attempts,
            traceparent: (self.key > 20).then(|| "00-trace".into()),
            ..item(&key)
        }
    }
}

pub(super) fn items(drafts: &[Draft]) -> Vec<NewItem> {
    drafts.iter().map(Draft::item).collect()
}
