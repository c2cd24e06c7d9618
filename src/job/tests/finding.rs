//! How a person names a job, and what a card says after it was changed.

use super::*;

#[test]
fn a_job_is_found_by_its_name_a_beginning_and_the_name_it_was_given() {
    let scratch = Scratch::new();
    let first = scratch.job(0, named("news"));
    let second = scratch.job(86_400, named("news"));
    let third = scratch.job(86_401, named("19700101"));
    let find = |text: &str| scratch.state.find(text);
    assert_eq!(find(&first.id).unwrap(), first);
    assert_eq!(
        find("news").unwrap(),
        second,
        "the latest that is called so"
    );
    assert_eq!(find("19700102-000000").unwrap(), second);
    // A name that is also a beginning: the name counts.
    assert_eq!(find("19700101").unwrap(), third);
    match find("19700102").unwrap_err() {
        JobError::Ambiguous { ids, .. } => assert_eq!(ids, [second.id, third.id.clone()]),
        other => panic!("{other:?}"),
    }
    for unknown in ["", "x", "..", "/", "1971"] {
        let error = find(unknown).unwrap_err();
        assert!(matches!(error, JobError::NotFound { .. }), "{error:?}");
        assert_eq!(error.kind(), JobErrorKind::NoInput);
    }
    let ids: Vec<String> = scratch
        .state
        .jobs()
        .unwrap()
        .into_iter()
        .map(|card| card.id)
        .collect();
    assert_eq!(ids, [first.id, find("news").unwrap().id, third.id]);
}

#[test]
fn jobs_of_one_second_have_names_of_their_own() {
    let scratch = Scratch::new();
    let digest = "0a1b0a1bc0de".to_owned() + &"5".repeat(52);
    let mut ids: Vec<String> = (0..40)
        .map(|n| {
            let card = if n % 2 == 0 {
                of_batch(&digest)
            } else {
                NewCard::default()
            };
            scratch.job(5, card).id
        })
        .collect();
    assert_eq!(ids[0], "19700101-000005-0a1b");
    assert_eq!(
        ids[2], "19700101-000005-c0de",
        "the next digits of the digest"
    );
    assert!(ids.iter().all(|id| id::is_name(id)), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[test]
fn a_card_is_changed_as_a_whole_and_read_back() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let mut job = scratch.state.take(&id).unwrap();
    job.update(|card| {
        card.state = JobState::Finished;
        card.finished_ms = Some(17);
        card.exit = Some(1);
        card.counts.insert("refused".into(), 3);
        card.flags = serde_json::json!({"relay": ["a"]});
        card.id = "../../elsewhere".into();
    })
    .unwrap();
    job.sync().unwrap();
    assert_eq!(job.id(), id, "a job cannot be renamed");
    assert_eq!(&scratch.state.find(&id).unwrap(), job.card());
    assert_eq!(job.card().counts["refused"], 3);
    let mut names: Vec<_> = fs::read_dir(job.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["job.json", "lock"], "nothing is left beside it");
}

#[test]
fn a_card_that_cannot_be_written_stays_what_it_was() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let mut job = scratch.state.take(&id).unwrap();
    let before = job.card().clone();
    fs::rename(job.dir(), scratch.path().join("jobs/away")).unwrap();
    let error = job.update(|card| card.runs = 9).unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Io, "{error}");
    assert_eq!(job.card(), &before);
}

#[test]
fn a_removed_job_is_gone_and_what_crashes_left_is_swept_away() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let jobs = scratch.path().join("jobs");
    for left in [".new-19700101-000000-0000", ".gone-19700101-000000-0001"] {
        fs::create_dir(jobs.join(left)).unwrap();
        fs::write(jobs.join(left).join("lock"), "").unwrap();
    }
    assert_eq!(scratch.state.jobs().unwrap().len(), 1);
    let job = scratch.state.take(&id).unwrap();
    fs::write(job.dir().join("index"), "x").unwrap();
    scratch.state.remove(job).unwrap();
    assert!(matches!(
        scratch.state.take(&id),
        Err(JobError::NotFound { .. })
    ));
    let id = scratch.job(2, named("n")).id;
    let names: Vec<_> = fs::read_dir(&jobs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, [id]);
}

#[test]
fn to_look_makes_nothing() {
    let scratch = Scratch::new();
    let nowhere = scratch.dir.path().join("nowhere");
    assert!(StateDir::open_existing(&nowhere).unwrap().is_none());
    assert!(!nowhere.exists());
    fs::create_dir(&nowhere).unwrap();
    assert!(StateDir::open_existing(&nowhere).unwrap().is_none());
    assert_eq!(fs::read_dir(&nowhere).unwrap().count(), 0);
    assert!(StateDir::open_existing(&scratch.path()).unwrap().is_some());
}
