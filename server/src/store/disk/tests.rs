//! What a data directory survives, and what it reports: crashes at every byte, damage, a lock.

use std::os::unix::fs::FileExt as _;

use super::*;

/// Opens a directory and returns it with the commits that it kept.
fn load(dir: &Path) -> io::Result<(DataDir, Vec<String>)> {
    let mut data = DataDir::open(dir)?;
    let mut kept = Vec::new();
    data.load(&mut |commit| {
        if !commit.is_empty() {
            kept.push(String::from_utf8(commit.to_vec()).unwrap());
        }
        Ok(())
    })?;
    Ok((data, kept))
}

fn kept(dir: &Path) -> Vec<String> {
    load(dir).unwrap().1
}

fn names(commits: std::ops::RangeInclusive<u32>) -> Vec<String> {
    commits.map(|n| format!("commit {n}")).collect()
}

/// Appends commits, with a sync after each up to `synced`.
fn write(data: &mut DataDir, commits: std::ops::RangeInclusive<u32>, synced: u32) {
    for n in commits {
        data.append(format!("commit {n}").as_bytes()).unwrap();
        if n <= synced {
            data.sync().unwrap();
        }
    }
}

fn log(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("log-{number:010}.gl"))
}

/// Bytes of a frame of `commit N`, for a one-digit N.
const FRAME: u64 = FRAME_BYTES as u64 + 8;

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Removes everything from a byte on, as a crash does to what was not synced.
fn lose_from(path: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.set_len(at).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn commits_come_back_in_their_order_over_several_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=4 {
        let (mut data, before) = load(dir.path()).unwrap();
        assert_eq!(before, names(1..=n - 1));
        write(&mut data, n..=n, n);
    }
    assert_eq!(kept(dir.path()), names(1..=4));
}

#[test]
fn a_log_of_an_older_version_is_read_and_one_of_a_newer_refused() {
    for version in [1, FACTS_VERSION, FACTS_VERSION + 1, 0] {
        let dir = tempfile::tempdir().unwrap();
        let (mut data, _) = load(dir.path()).unwrap();
        write(&mut data, 1..=3, 3);
        drop(data);
        let path = log(dir.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let loaded = load(dir.path()).map(|(_, commits)| commits);
        let is_known = (1..=FACTS_VERSION).contains(&version);
        match loaded {
            Ok(commits) => assert!(is_known && commits == names(1..=3), "version {version}"),
            Err(error) => assert!(
                !is_known && error.to_string().contains("layout version"),
                "version {version}: {error}"
            ),
        }
    }
}

#[test]
fn a_write_torn_at_any_byte_loses_that_commit_only_and_never_comes_back() {
    for torn in 0..FRAME {
        let dir = tempfile::tempdir().unwrap();
        let (mut data, _) = load(dir.path()).unwrap();
        write(&mut data, 1..=3, 2);
        drop(data);
        lose_from(&log(dir.path(), 1), HEADER_BYTES + 2 * FRAME + torn);
        let (mut data, before) = load(dir.path()).unwrap();
        assert_eq!(before, names(1..=2), "torn at byte {torn}");
        data.append(b"commit 3").unwrap();
        data.sync().unwrap();
        drop(data);
        assert_eq!(kept(dir.path()), names(1..=3), "torn at byte {torn}");
        assert_eq!(kept(dir.path()), names(1..=3), "torn at byte {torn}");
    }
}

#[test]
fn an_unsynced_commit_that_is_lost_takes_later_unsynced_ones_with_it_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=4, 2);
    drop(data);
    // Pages of unsynced commits reach the disk in any order: the third is lost, the fourth not.
    flip(&log(dir.path(), 1), HEADER_BYTES + 2 * FRAME + 3);
    assert_eq!(kept(dir.path()), names(1..=2));
    assert_eq!(kept(dir.path()), names(1..=2));
}

#[test]
fn a_flipped_bit_in_a_synced_commit_is_reported_with_its_place() {
    for at in 0..FRAME {
        let dir = tempfile::tempdir().unwrap();
        let (mut data, _) = load(dir.path()).unwrap();
        write(&mut data, 1..=3, 3);
        drop(data);
        flip(&log(dir.path(), 1), HEADER_BYTES + FRAME + at);
        for _ in 0..2 {
            let error = load(dir.path()).unwrap_err().to_string();
            let place = format!("damaged at byte {}", HEADER_BYTES + FRAME);
            assert!(error.contains(&place), "byte {at} of the frame: {error}");
        }
    }
}

#[test]
fn damage_in_an_old_segment_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=2, 2);
    drop(data);
    drop(load(dir.path()).unwrap());
    flip(&log(dir.path(), 1), HEADER_BYTES + FRAME + 9);
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("log-0000000001.gl is damaged"), "{error}");
}

#[test]
fn a_long_log_goes_over_several_segments_and_a_commit_may_be_larger_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    let commits: Vec<String> = (0..60).map(|n| format!("{n}").repeat(n * 20 + 1)).collect();
    let large = "x".repeat(3 * SEGMENT_BYTES as usize);
    for commit in commits.iter().chain([&large, &commits[7]]) {
        data.append(commit.as_bytes()).unwrap();
    }
    data.sync().unwrap();
    assert!(data.numbers("log").unwrap().len() > 3);
    drop(data);
    let kept = kept(dir.path());
    assert!(kept.iter().eq(commits.iter().chain([&large, &commits[7]])));
}

#[test]
fn after_a_segment_that_could_not_be_made_the_log_goes_on_in_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=2, 2);
    // Where the next segment should be there is something else.
    fs::create_dir(log(dir.path(), 2)).unwrap();
    data.snapshot(&mut std::iter::empty()).unwrap_err();
    fs::remove_dir(log(dir.path(), 2)).unwrap();
    drop(data);
    assert_eq!(kept(dir.path()), names(1..=2));
}

#[test]
fn a_segment_that_is_missing_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        write(&mut load(dir.path()).unwrap().0, n..=n, n);
    }
    fs::remove_file(log(dir.path(), 2)).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("log-0000000002.gl is missing"), "{error}");
}

#[test]
fn a_crash_while_a_segment_is_made_loses_nothing() {
    for bytes in 0..HEADER_BYTES {
        for zeros in [0, 100] {
            let dir = tempfile::tempdir().unwrap();
            write(&mut load(dir.path()).unwrap().0, 1..=2, 2);
            let mut begun = header(3)[..bytes as usize].to_vec();
            begun.resize((bytes + zeros) as usize, 0);
            fs::write(log(dir.path(), 2), begun).unwrap();
            assert_eq!(
                kept(dir.path()),
                names(1..=2),
                "{bytes} bytes, {zeros} zeros"
            );
            assert_eq!(
                kept(dir.path()),
                names(1..=2),
                "{bytes} bytes, {zeros} zeros"
            );
        }
    }
}

#[test]
fn a_directory_of_another_process_is_refused_and_free_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path()).unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(error.to_string().contains("in use by another process"));
    drop(first);
    DataDir::open(dir.path()).unwrap();
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=3, 3);
    let mut parts = ["part 1", "part 2"]
        .map(|part| part.as_bytes().to_vec())
        .into_iter();
    data.snapshot(&mut parts).unwrap();
    assert!(!log(dir.path(), 1).exists());
    write(&mut data, 4..=5, 5);
    drop(data);
    for _ in 0..2 {
        let expected = ["part 1", "part 2", "commit 4", "commit 5"];
        assert_eq!(kept(dir.path()), expected);
    }
}

#[test]
fn a_snapshot_that_was_not_finished_changes_nothing() {
    struct Crash;
    impl Iterator for Crash {
        type Item = Vec<u8>;
        fn next(&mut self) -> Option<Vec<u8>> {
            panic!("crash")
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=3, 3);
    let crash =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| data.snapshot(&mut Crash)));
    assert!(crash.is_err());
    drop(data);
    assert!(dir.path().join("snapshot.unfinished").exists());
    assert_eq!(kept(dir.path()), names(1..=3));
}

#[test]
fn a_crash_between_a_snapshot_and_the_removal_of_the_log_shows_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=3, 3);
    let old = fs::read(log(dir.path(), 1)).unwrap();
    data.snapshot(&mut [b"part 1".to_vec()].into_iter())
        .unwrap();
    drop(data);
    fs::write(log(dir.path(), 1), old).unwrap();
    assert_eq!(kept(dir.path()), ["part 1"]);
}

#[test]
fn a_damaged_or_cut_snapshot_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (mut data, _) = load(dir.path()).unwrap();
    write(&mut data, 1..=1, 1);
    data.snapshot(&mut [b"part 1".to_vec()].into_iter())
        .unwrap();
    drop(data);
    let path = dir.path().join("snapshot-0000000001.gl");
    let whole = fs::read(&path).unwrap();
    for bytes in 0..whole.len() {
        fs::write(&path, &whole[..bytes]).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("snapshot-0000000001.gl is damaged"),
            "{bytes}: {error}"
        );
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(kept(dir.path()), ["part 1"]);
}
