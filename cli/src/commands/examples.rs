//! What the end of each command's help shows; a test parses every line of it.

pub(crate) const GANGLINE: &str = "\
Examples:
  # See it work for ten seconds
  gangline run --demo
  # Run a program for every file, on this machine
  find . -name '*.rs' | gangline run -- wc -l
  # A queue service, a small cluster and a dashboard, until ^C
  gangline up
  # The examples of a command
  gangline push --help";

pub(super) const RUN: &str = "\
Examples:
  # Count the lines of each file
  find . -name '*.rs' | gangline run -- wc -l
  # Eight at a time, three attempts each, results in the order of the items
  gangline run -a urls.txt -j8 --attempts 3 -r pages.txt -- curl -sSf {}
  # Names with any characters in them
  find . -name '*.jpg' -print0 | gangline run -0 -- convert {} {.}.png
  # A field of each record; what would run, without running it
  gangline run --csv -a people.csv --dry-run -- echo {item.name} {item.city}
  # Killed or not, the same line goes on where it was
  gangline run --data-dir night --glob 'videos/*.mov' -- ffmpeg -i {} {.}.mp4
  # A Kubernetes Job on this machine
  gangline run -f job.yaml
  # The same run as a Job for a cluster
  gangline run --range 1..300 --dry-run=client --image ghcr.io/team/tools -- ./step {}

Exit codes: 0 all done, 1 items dead or abandoned or a Job that failed, 2 usage, 69 service lost,
74 disk, 130 or 143 interrupted; then the last lines say which command goes on.";

pub(super) const UP: &str = "\
Examples:
  # A service, a cluster and their dashboard until ^C; prints what to export
  gangline up
  # On other ports, with a directory of its own
  gangline up --listen 127.0.0.1:0 --cluster-listen 127.0.0.1:0 --data-dir state";

pub(super) const SERVER: &str = "\
Examples:
  # On this machine only, queues in ./gangline-data
  gangline server
  # For others, which takes a token
  gangline server --listen 0.0.0.0:4264 --data-dir /var/lib/gangline --token-file token
  # Any number of replicas on one Redis
  gangline server --redis redis://redis:6379 --redis-durability aof --token-file token";

pub(super) const CONTROLLER: &str = "\
Examples:
  # On the cluster that the kubeconfig names, or that this runs in
  gangline controller --url http://gangline:4264 --token-file token
  # Jobs of one namespace only; Pods reach the service by another address
  gangline controller -n batch --url http://127.0.0.1:4264 --worker-url http://gangline.batch:4264";

pub(super) const WORK: &str = "\
Examples:
  # A worker of the queue that GANGLINE_QUEUE names, at GANGLINE_URL
  GANGLINE_QUEUE=images gangline work -- convert {} {.}.png
  # Eight at a time; an item that takes longer than 5 minutes is tried again
  gangline work -j8 --timeout 5m -- ./resize --width {item.width} {item.path}
  # The item on stdin; exit code 3 means that it can never work
  gangline work --stdin --dead-codes 3 -- ./import

Exit codes: 0 only when the queue is drained or was stopped with success, 70 stopped with failure,
143 told to go, 69 service lost, 77 credentials refused.";

pub(super) const BENCH: &str = "\
Examples:
  # A million items through a service that is started for it
  gangline bench --items 1000000
  # The time from a push to a waiting worker, of a service that runs
  gangline bench --latency --items 1000 --url http://127.0.0.1:4264";

pub(super) const TOKEN_CREATE: &str = "\
Examples:
  # For workers of one queue, for half a day
  gangline token create --role worker --queue images --expires 12h --note 'night run'
  # For a producer that may also see everything in its namespace
  gangline token create --role producer --role observer --namespace team-a";

pub(super) const TOKEN_LIST: &str = "\
Examples:
  # Ids, roles and scopes
  gangline token list";

pub(super) const TOKEN_REVOKE: &str = "\
Examples:
  # The id is what create and list show
  gangline token revoke 1f0c9a3b5d7e2468";

pub(super) const PUSH: &str = "\
Examples:
  # Items as lines, and no more after them
  find . -name '*.jpg' | gangline push images --seal
  # JSON values, one a line
  gangline push pages --json -a pages.jsonl
  # Numbers
  gangline push frames --range 1..300 --seal
  # Files of this machine, by their names
  gangline push images --glob 'photos/**/*.jpg'";

pub(super) const WAIT: &str = "\
Examples:
  # Until the queue is over
  gangline wait images
  # Three dead items are still a success
  gangline wait images --max-dead-items 3
  # Until a Job is Complete or Failed
  gangline wait job/resize

Exit codes: 0 all of it is done, 1 items dead or abandoned or a Job that failed.";

pub(super) const GET: &str = "\
Examples:
  # All queues, and one of them as it changes
  gangline get queues
  gangline get queues images --watch
  # Who works on it, and what waits
  gangline get workers images
  gangline get items images --state leased --limit 20
  # What was given up, with the last error
  gangline get dead images -o json
  # Who tried what was not done at once, for how long, and how that ended
  gangline get attempts images --state dead
  # Jobs and Pods, as kubectl shows them
  gangline get jobs -o wide
  gangline get pods -l app=resize";

pub(super) const DELETE: &str = "\
Examples:
  # A queue with its items and results
  gangline delete images
  # A Job with its Pods
  gangline delete job/resize
  # All that a manifest names
  gangline delete -f job.yaml";

pub(super) const APPLY: &str = "\
Examples:
  gangline apply -f job.yaml
  sed 's/parallelism: 2/parallelism: 9/' job.yaml | gangline apply -f -";

pub(super) const SCALE: &str = "\
Examples:
  gangline scale job/resize --parallelism 10
  # No new Pod, and those that run leave
  gangline scale job/resize --parallelism 0";

pub(super) const LOGS: &str = "\
Examples:
  # All Pods of a Job, until they end
  gangline logs job/resize --follow
  gangline logs pod/resize-x7k2p --tail 20";

pub(super) const SEAL: &str = "\
Examples:
  # Workers leave once what is there is done
  gangline seal images";

pub(super) const PAUSE: &str = "\
Examples:
  # What is leased goes on to its end, nothing new begins
  gangline pause images";

pub(super) const RESUME: &str = "\
Examples:
  gangline resume images";

pub(super) const CANCEL: &str = "\
Examples:
  # The ids are what get shows
  gangline get items images --state ready
  gangline cancel images 17 23";

pub(super) const REDRIVE: &str = "\
Examples:
  # All dead items again, with fresh attempts
  gangline redrive images
  # Only some of them
  gangline redrive images --contains timeout --max 100
  gangline redrive images --id 17 --id 23
  # From a queue that is over into a new one
  gangline redrive images --into images-again";

pub(super) const STOP: &str = "\
Examples:
  # What is left is abandoned, and workers exit 70
  gangline stop images --reason 'wrong input'
  # Enough has been found: workers exit 0
  gangline stop images --outcome success --reason found";

pub(super) const EXPLAIN: &str = "\
Examples:
  gangline explain images";

pub(super) const RESULTS: &str = "\
Examples:
  # As they come, until the queue is over
  gangline results images --follow
  # In the order of the items, their results alone
  gangline results images --order push | jq -c .result
  # Is a copy whole and unaltered?
  gangline results images > copy.jsonl
  gangline results images --verify --file copy.jsonl";

pub(super) const COMPLETIONS: &str = "\
Examples:
  # For this shell
  source <(gangline completions bash)
  # For good
  gangline completions bash > ~/.local/share/bash-completion/completions/gangline
  gangline completions zsh > ~/.zfunc/_gangline
  gangline completions fish > ~/.config/fish/completions/gangline.fish";

pub(super) const MAN: &str = "\
Examples:
  # Read the page of the command itself
  gangline man | man -l -
  # Pages of all commands, for man gangline-run
  gangline man ~/.local/share/man/man1";
