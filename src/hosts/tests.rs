//! The memory on disk: what comes back, who may read it, and what becomes of files that are none.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::queue::terms::Learned;
use crate::smtp::Pipelining;

const NOW: i64 = 1_800_000_000_000;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Opens without a word.
#[track_caller]
fn open(state: &Path) -> HostStore {
    let opened = HostStore::open(state);
    assert_eq!(opened.warning, None);
    opened.store.unwrap()
}

fn address(ip: &str) -> AddressRow {
    AddressRow {
        level: Pipelining::Classic,
        no_chunking: true,
        suspected_ms: Some(NOW - 5),
        failures: 2,
        dead_until_ms: Some(NOW + 60_000),
        tls_failed_ms: Some((NOW - 9, NOW - 3)),
        tls: Some("TLSv1.3".into()),
        capabilities: Some("PIPELINING".into()),
        rtt_ms: Some(17),
        ..AddressRow::new(ip.parse().unwrap(), NOW)
    }
}

fn site(key: &str, source: &str, window: u32) -> SiteRow {
    SiteRow {
        key: key.into(),
        source: source.into(),
        learned: Learned {
            window,
            sessions_ceiling: Some(5),
            messages_per_session: None,
            rate_per_minute: Some(99.5),
        },
        learned_ms: NOW,
        seen_ms: NOW,
    }
}

#[test]
fn what_was_saved_comes_back_and_the_last_writer_of_a_row_wins() {
    let scratch = scratch();
    let (mut one, mut two) = (open(scratch.path()), open(scratch.path()));
    assert!(one.is_empty().unwrap());
    let sites = [site("a.test", "", 3), site("a.test", "192.0.2.9", 4)];
    one.save(&[address("2001:db8::1")], &sites).unwrap();
    two.save(&[address("192.0.2.1")], &[site("a.test", "", 7)])
        .unwrap();
    drop((one, two));
    let store = open(scratch.path());
    assert!(!store.is_empty().unwrap());
    let ip = "2001:db8::1".parse().unwrap();
    assert_eq!(
        store.address(ip, NOW).unwrap(),
        Some(address("2001:db8::1"))
    );
    assert_eq!(
        store.address("192.0.2.2".parse().unwrap(), NOW).unwrap(),
        None
    );
    let found = store.site("a.test", NOW).unwrap();
    assert_eq!(
        found,
        [site("a.test", "", 7), site("a.test", "192.0.2.9", 4)]
    );
    assert_eq!(store.site("b.test", NOW).unwrap(), []);
    let (sites, addresses) = store.all(NOW).unwrap();
    assert_eq!((sites.len(), addresses.len()), (2, 2));
    assert_eq!(store.all(NOW + KEPT_MS + 1).unwrap(), (vec![], vec![]));
}

#[test]
fn the_file_is_for_its_owner_only() {
    let scratch = scratch();
    drop(open(scratch.path()));
    let mode = fs::metadata(scratch.path().join(FILE))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_used_is_set_aside_with_one_line_and_begun_anew() {
    let foreign = "CREATE TABLE t(x); INSERT INTO t VALUES (1);";
    let newer = format!("{} PRAGMA user_version = 2;", schema::SCHEMA);
    let torn = format!("{} DROP TABLE site;", schema::SCHEMA);
    for (sql, reason) in [
        ("", "file is not a database"),
        (foreign, "not a host memory"),
        (&newer, "another version (2)"),
        (&torn, "no such table"),
    ] {
        let scratch = scratch();
        let path = scratch.path().join(FILE);
        if sql.is_empty() {
            fs::write(&path, vec![b'x'; 9000]).unwrap();
        } else {
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        }
        let before = fs::read(&path).unwrap();
        let error = HostStore::open_existing(scratch.path()).unwrap_err();
        assert!(error.is_unfit, "who only looks changes nothing: {error}");
        let opened = HostStore::open(scratch.path());
        let warning = opened.warning.unwrap();
        assert!(warning.contains(reason), "{warning}");
        assert!(warning.contains("set aside"), "{warning}");
        assert!(opened.store.unwrap().is_empty().unwrap());
        assert_eq!(fs::read(scratch.path().join(BAD)).unwrap(), before);
        drop(open(scratch.path()));
    }
}

#[test]
fn a_damaged_page_is_an_error_and_no_panic() {
    let scratch = scratch();
    let mut store = open(scratch.path());
    let rows: Vec<SiteRow> = (0..500)
        .map(|n| site(&format!("{n}.test"), "", 1))
        .collect();
    store.save(&[], &rows).unwrap();
    drop(store);
    let path = scratch.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[4096 * 3..length].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let opened = HostStore::open(scratch.path());
    let Some(mut store) = opened.store else {
        return assert!(opened.warning.is_some());
    };
    let _ = (store.all(NOW), store.site("7.test", NOW), store.sweep(NOW));
    let _ = store.save(&[], &rows);
}

#[test]
fn a_directory_in_its_place_or_no_room_means_a_run_without_memory() {
    let scratch = scratch();
    fs::create_dir(scratch.path().join(FILE)).unwrap();
    fs::create_dir_all(scratch.path().join(BAD).join("x")).unwrap();
    let opened = HostStore::open(scratch.path());
    assert!(opened.store.is_none());
    let warning = opened.warning.unwrap();
    assert!(warning.contains("without host memory"), "{warning}");
    let opened = HostStore::open(&scratch.path().join("missing"));
    assert!(opened.store.is_none() && opened.warning.is_some());
    assert!(
        HostStore::open_existing(&scratch.path().join("missing"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_file_that_is_deleted_while_it_is_used_hurts_nobody() {
    let scratch = scratch();
    let mut one = open(scratch.path());
    one.save(&[], &[site("a.test", "", 3)]).unwrap();
    fs::remove_file(scratch.path().join(FILE)).unwrap();
    let mut two = open(scratch.path());
    let _ = one.save(&[], &[site("b.test", "", 3)]);
    two.save(&[], &[site("c.test", "", 3)]).unwrap();
    drop(one);
    assert_eq!(two.site("c.test", NOW).unwrap().len(), 1);
    drop(two);
    assert_eq!(open(scratch.path()).all(NOW).unwrap().0.len(), 1);
}

#[test]
fn who_finds_it_busy_gets_an_error_and_succeeds_later() {
    let scratch = scratch();
    let (mut one, mut two) = (open(scratch.path()), open(scratch.path()));
    one.connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = two.save(&[], &[site("a.test", "", 3)]).unwrap_err();
    assert!(!error.is_unfit, "{error}");
    let opened = HostStore::open(scratch.path());
    assert!(
        opened.store.is_none(),
        "nobody's file is set aside for that"
    );
    one.connection.execute_batch("COMMIT").unwrap();
    two.save(&[], &[site("a.test", "", 3)]).unwrap();
    one.save(&[], &[site("b.test", "", 3)]).unwrap();
}

#[test]
fn rows_that_were_never_written_here_are_passed_over() {
    let scratch = scratch();
    let mut store = open(scratch.path());
    store
        .save(
            &[address("192.0.2.1"), address("192.0.2.2")],
            &[site("a.test", "", 3)],
        )
        .unwrap();
    store
        .connection
        .execute_batch(
            "UPDATE address SET level = 'fast' WHERE ip = '192.0.2.1';
            UPDATE address SET failures = -4 WHERE ip = '192.0.2.2';
            INSERT INTO address(ip, level, no_chunking, failures, seen_ms) VALUES ('x', 'none', 0, 0, 1e300);
            UPDATE site SET window = 'many', sessions_ceiling = -1, rate_per_minute = 'x', key = 'a' || char(27);",
        )
        .unwrap();
    let (sites, addresses) = store.all(NOW).unwrap();
    assert_eq!(addresses, []);
    assert_eq!(
        (sites[0].learned.window, sites[0].learned.sessions_ceiling),
        (0, None)
    );
    assert_eq!(
        (&*sites[0].key, sites[0].learned.rate_per_minute),
        ("a?", None)
    );
}

#[test]
fn what_is_named_is_forgotten_and_what_is_old_is_swept() {
    let scratch = scratch();
    let mut store = open(scratch.path());
    let old = SiteRow {
        seen_ms: NOW - KEPT_MS - 1,
        ..site("old.test", "", 1)
    };
    let addresses = [address("192.0.2.1"), address("192.0.2.2")];
    store
        .save(
            &addresses,
            &[site("a.test", "", 1), site("a.test", "x", 1), old],
        )
        .unwrap();
    store.sweep(NOW).unwrap();
    let ip = "192.0.2.2".parse().unwrap();
    assert_eq!(store.forget(&["a.test", "old.test"], &[ip]).unwrap(), 3);
    assert_eq!(store.forget_all().unwrap(), 1);
    assert!(store.is_empty().unwrap());
}
