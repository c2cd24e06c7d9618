//! What others may have planted, what is damaged, and what belongs to somebody else.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// The error says what, and its hint what to do.
fn assert_unsafe(error: JobError, what: &str, hint: &str) {
    assert_eq!(error.kind(), JobErrorKind::Permission, "{error:?}");
    assert!(error.to_string().contains(what), "{error}");
    let said = error.hint().unwrap();
    assert!(said.contains(hint), "{said}");
}

#[test]
fn what_is_made_is_for_its_owner_only() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let path = scratch.path();
    let mode = |name: &str| path.join(name).metadata().unwrap().mode() & 0o7777;
    let job = format!("jobs/{id}");
    for dir in [".", "jobs", &job] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    for file in ["lock", &format!("{job}/lock"), &format!("{job}/job.json")] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn a_directory_that_others_may_write_into_is_refused() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let path = scratch.path();
    for (name, mode) in [("", 0o720), ("", 0o702), ("", 0o1777), ("jobs", 0o770)] {
        let dir: PathBuf = path.join(name).components().collect();
        set_mode(&dir, mode);
        let hint = match mode {
            // One like /tmp is nobody's to take for himself.
            0o1777 => "a directory of your own".to_owned(),
            _ => format!("chmod 700 {}", dir.display()),
        };
        assert_unsafe(
            StateDir::open(&path).unwrap_err(),
            "others may write",
            &hint,
        );
        assert_unsafe(
            StateDir::open_existing(&path).unwrap_err(),
            "others may write",
            &hint,
        );
        set_mode(&dir, 0o700);
    }
    set_mode(&path, 0o755);
    StateDir::open(&path).unwrap();
    set_mode(&scratch.state.job_dir(&id), 0o777);
    assert_unsafe(
        scratch.state.take(&id).unwrap_err(),
        "others may write",
        "chmod 700",
    );
    set_mode(&scratch.state.job_dir(&id), 0o700);
    set_mode(&card_path(&scratch.state, &id), 0o666);
    assert_unsafe(
        scratch.state.take(&id).unwrap_err(),
        "others may write",
        "chmod 600",
    );
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    let us = rustix::process::geteuid().as_raw();
    let scratch = Scratch::new();
    let other = if us == 0 {
        // Only root can make what is not its own.
        std::os::unix::fs::chown(scratch.path(), Some(65_534), None).unwrap();
        scratch.path()
    } else {
        PathBuf::from("/")
    };
    let error = StateDir::open_existing(&other).unwrap_err();
    assert_unsafe(error, "belongs to user", "run as that user");
    assert_unsafe(
        StateDir::open(&other).unwrap_err(),
        "belongs to user",
        "--state",
    );
}

#[test]
fn a_state_directory_that_is_a_link_is_refused_with_a_slash_behind_it_too() {
    let scratch = Scratch::new();
    let link = scratch.dir.path().join("link");
    symlink(scratch.path(), &link).unwrap();
    for end in ["", "/", "/.", "//"] {
        let path = PathBuf::from(format!("{}{end}", link.display()));
        let hint = format!("--state {}", scratch.path().display());
        assert_unsafe(
            StateDir::open(&path).unwrap_err(),
            "is a symbolic link",
            &hint,
        );
    }
}

#[test]
fn no_link_is_followed_below_the_state_directory() {
    for planted in ["jobs", "lock", "job", "job/lock", "job/job.json"] {
        let scratch = Scratch::new();
        let id = scratch.job(1, named("n")).id;
        let victim = scratch.file("victim", "precious");
        let target = scratch.dir.path().join("moved");
        let path = match planted {
            "jobs" | "lock" => scratch.path().join(planted),
            _ => scratch
                .state
                .job_dir("")
                .join(planted.replacen("job", &id, 1)),
        };
        if path.is_dir() {
            // What the link leads to would do very well.
            fs::rename(&path, &target).unwrap();
            symlink(&target, &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
            symlink(&victim, &path).unwrap();
        }
        let failed = StateDir::open(&scratch.path()).and_then(|state| {
            let _lock = state.lock()?;
            state.take(&id)
        });
        let error = failed.err().unwrap_or_else(|| panic!("{planted}"));
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}

#[test]
fn a_fifo_in_a_files_place_hangs_nobody() {
    for name in ["lock", "job.json"] {
        let scratch = Scratch::new();
        let id = scratch.job(1, named("n")).id;
        let path = scratch.state.job_dir(&id).join(name);
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let error = scratch.state.take(&id).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }
}

#[test]
fn a_card_cut_anywhere_or_of_another_job_is_damaged_and_hides_no_other_job() {
    let scratch = Scratch::new();
    let digest = "abcd".to_owned() + &"0".repeat(60);
    let id = scratch.job(1, of_batch(&digest)).id;
    let good = scratch.job(2, named("good"));
    let path = card_path(&scratch.state, &id);
    let whole = fs::read(&path).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let newer = text.replace("\"version\": 1", "\"version\": 2");
    let foreign = text.replace(&id, &good.id);
    // The newline at the end is not part of the value.
    let cuts = (1..whole.len() - 1).step_by(7).map(|end| &whole[..end]);
    for bytes in cuts.chain([newer.as_bytes(), foreign.as_bytes(), b"\0\xff{}"]) {
        fs::write(&path, bytes).unwrap();
        for error in [
            scratch.state.find(&id).unwrap_err(),
            scratch.state.find("19700101-000001").unwrap_err(),
            scratch.state.take(&id).unwrap_err(),
            scratch.state.by_digest(&digest).unwrap_err(),
        ] {
            assert!(matches!(error, JobError::Damaged { .. }), "{error:?}");
            assert_eq!(error.kind(), JobErrorKind::Data);
            assert!(error.hint().unwrap().contains("job.json"));
        }
        let listing = scratch.state.listing().unwrap();
        assert_eq!(listing.cards, std::slice::from_ref(&good));
        assert_eq!(listing.unreadable[0].0, id);
        assert_eq!(scratch.state.find("good").unwrap(), good);
        // Its name says that it is of another batch.
        let other = "1234".repeat(16);
        assert_eq!(scratch.state.by_digest(&other).unwrap(), None);
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(
        scratch.state.by_digest(&digest).unwrap().unwrap().id,
        id,
        "nothing was changed by looking"
    );
    fs::remove_file(&path).unwrap();
    let error = scratch.state.by_digest(&digest).unwrap_err();
    assert!(matches!(error, JobError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_card_that_the_power_took_before_it_was_written_is_that_of_no_job() {
    let scratch = Scratch::new();
    let digest = "abcd".to_owned() + &"0".repeat(60);
    let id = scratch.job(1, of_batch(&digest)).id;
    let (path, dir) = (card_path(&scratch.state, &id), scratch.state.job_dir(&id));
    for bytes in [&b""[..], &[0; 512]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(scratch.state.by_digest(&digest).unwrap(), None);
        assert!(scratch.state.listing().unwrap().unreadable.is_empty());
    }
    // Long after that it is damage.
    fs::write(dir.join("ledger.sqlite"), "x").unwrap();
    scratch.state.by_digest(&digest).unwrap_err();
    scratch.job(2, named("other"));
    assert!(dir.exists());
    fs::remove_file(dir.join("ledger.sqlite")).unwrap();
    scratch.job(3, named("another"));
    assert!(!dir.exists(), "swept away when a job is made");
}

#[test]
fn strange_names_in_the_state_directory_are_no_jobs() {
    let scratch = Scratch::new();
    let jobs = scratch.path().join("jobs");
    for name in [
        "notes",
        "20261123-155610-3F9A",
        "20261123-155610-3f9a.bak",
        "2026é123-15561-3f9a",
    ] {
        fs::create_dir(jobs.join(name)).unwrap();
    }
    let listing = scratch.state.listing().unwrap();
    assert_eq!((listing.cards.len(), listing.unreadable.len()), (0, 0));
    for id in [".", "..", "../jobs", "notes", "2026é123-15561-3f9a"] {
        let error = scratch.state.take(id).unwrap_err();
        assert!(matches!(error, JobError::NotFound { .. }), "{error:?}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_made_says_so() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "");
    for path in [file.join("below"), PathBuf::from("/proc/mailer-state")] {
        let error = StateDir::open(&path).unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::CantCreate, "{error:?}");
        assert!(error.hint().unwrap().contains("--state DIR"));
    }
    let error = StateDir::open(&file).unwrap_err();
    assert!(error.to_string().contains("is no directory"), "{error}");
}
