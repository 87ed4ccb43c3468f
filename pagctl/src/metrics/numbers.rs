//! The numbers, from what is known of this host. No label names a user: monitoring is read by others than root, and each
//! user would be a series of its own.

use std::collections::BTreeMap;

use pag::store::lease::{Lease, LeaseKind};
use pag::store::record::{PagKind, Record};

use super::text::{Family, Kind, Sample};
use crate::remote::Statistics;

/// Most pairs of client and cell that have a series of their own. A user can put tokens of any cell into a ring.
const MOST: usize = 64;
/// The cell of the tokens beyond that, as the helper has it for its counters. No cell has this name.
const OTHERS: &str = "(others)";

/// What is known of this host.
pub(super) struct Facts {
    /// What the helper counts; none if it does not answer.
    pub(super) helper: Option<Statistics>,
    /// How often systemd has started the helper again; none if systemd does not tell.
    pub(super) restarts: Option<u64>,
    /// The record of each PAG; none for one that cannot be read.
    pub(super) records: Vec<Option<Record>>,
    /// How many user managers run outside of their PAGs; none if systemd does not tell which run.
    pub(super) outside: Option<usize>,
}

/// All numbers. `is_alive` is whether the process of a lease still runs; `now` is in seconds since the epoch.
pub(super) fn families(facts: &Facts, now: u64, is_alive: impl Fn(&Lease) -> bool) -> Vec<Family> {
    let records = || facts.records.iter().flatten();
    let leases = |role: LeaseKind| {
        let all = records().flat_map(|record| &record.leases);
        all.filter(|lease| lease.role == role && is_alive(lease)).count()
    };
    let of_kind = |kind: PagKind| records().filter(|record| record.kind == kind).count();
    let kinds = [PagKind::User, PagKind::Session, PagKind::Own].map(|kind| (kind.as_str(), of_kind(kind)));
    let unreadable = facts.records.len() - records().count();
    let failed = records().filter(|record| record.last_seeding.is_some_and(|last| !last.ok)).count();
    let tokens = tokens(&facts.records, now);
    let helper = facts.helper.as_ref();
    let jobs = helper.map_or(&[][..], |statistics| &statistics.jobs);
    vec![
        gauge("pag_helper_up", "Whether pag-logind-helper answers on the system bus.", one(helper.is_some())),
        gauge(
            "pag_helper_start_time_seconds",
            "When the helper was started, in seconds since the epoch. Its counters begin at zero then.",
            helper.map(|statistics| (Vec::new(), statistics.since)),
        ),
        counter(
            "pag_helper_restarts_total",
            "How often systemd has started the helper again after it had ended.",
            facts.restarts.map(|count| (Vec::new(), count)),
        ),
        gauge(
            "pag_pags",
            "PAGs by kind, as org.pam_pag.Pag1(5) has it; 'unreadable' for those with a damaged record, or that of another release.",
            kinds.into_iter().chain([("unreadable", unreadable)]).map(|(kind, count)| labelled("kind", kind, count)),
        ),
        gauge(
            "pag_leases",
            "Leases of processes that run: they keep PAGs in use.",
            [LeaseKind::Login, LeaseKind::Manager].map(|role| labelled("role", role.as_str(), leases(role))),
        ),
        gauge(
            "pag_tokens",
            "Tokens that the registry names, by client and cell. A PAG that follows another one does not count.",
            tokens.iter().flat_map(|(name, found)| {
                [("good", found.good), ("expired", found.expired)].map(|(state, count)| {
                    let mut labels = token_labels(&name.0, &name.1);
                    labels.push(("state", state.to_owned()));
                    (labels, count)
                })
            }),
        ),
        gauge(
            "pag_first_token_end_timestamp_seconds",
            "When the first of the good tokens ends, in seconds since the epoch.",
            tokens.iter().filter_map(|(name, found)| Some((token_labels(&name.0, &name.1), found.first_end?))),
        ),
        gauge(
            "pag_pags_last_seeding_failed",
            "PAGs of which the last seeding, by a login or the helper, has failed, or has not ended yet.",
            one_number(failed),
        ),
        gauge(
            "pag_managers_outside",
            "User managers that run outside of their users' PAGs.",
            facts.outside.into_iter().flat_map(one_number),
        ),
        counter(
            "pag_token_jobs_total",
            "Token jobs of the helper that have ended, also those that failed. Seeders that logins run do not count.",
            jobs.iter().map(|job| (token_labels(&job.client, &job.cell), job.ended)),
        ),
        counter(
            "pag_token_job_failures_total",
            "Token jobs of the helper that have failed.",
            jobs.iter().map(|job| (token_labels(&job.client, &job.cell), job.failed)),
        ),
    ]
}

/// The tokens of one client and cell.
#[derive(Default)]
struct Tokens {
    good: u64,
    expired: u64,
    /// When the first of the good ones ends; none without one that ends.
    first_end: Option<u64>,
}

/// The tokens of all PAGs but those that follow others, by client and cell. Names of cells are those of users: in lower case,
/// since cells are not distinguished by case.
fn tokens(records: &[Option<Record>], now: u64) -> BTreeMap<(String, String), Tokens> {
    let mut all: BTreeMap<(String, String), Tokens> = BTreeMap::new();
    for held in records.iter().flatten().filter(|record| record.follows.is_none()).flat_map(|record| &record.tokens) {
        let mut name = (held.client.to_string(), held.cell.as_str().to_ascii_lowercase());
        if !all.contains_key(&name) && all.len() >= MOST {
            OTHERS.clone_into(&mut name.1);
        }
        let found = all.entry(name).or_default();
        if held.expires > now {
            found.good += 1;
            found.first_end = found.first_end.into_iter().chain([held.expires]).min();
        } else {
            found.expired += 1;
        }
    }
    all
}

fn gauge(name: &'static str, help: &'static str, samples: impl IntoIterator<Item = Sample>) -> Family {
    Family { name, kind: Kind::Gauge, help, samples: samples.into_iter().collect() }
}

fn counter(name: &'static str, help: &'static str, samples: impl IntoIterator<Item = Sample>) -> Family {
    Family { kind: Kind::Counter, ..gauge(name, help, samples) }
}

fn one(value: bool) -> [Sample; 1] {
    [(Vec::new(), u64::from(value))]
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn one_number(count: usize) -> [Sample; 1] {
    [(Vec::new(), number(count))]
}

fn labelled(label: &'static str, value: &str, count: usize) -> Sample {
    (vec![(label, value.to_owned())], number(count))
}

fn token_labels(client: &str, cell: &str) -> Vec<(&'static str, String)> {
    vec![("client", client.to_owned()), ("cell", cell.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::super::text::{render, tests::parse};
    use super::*;
    use crate::remote::JobCount;
    use pag::store::record::{Held, LastSeeding};
    use pag::sys::Process;
    use pag::types::{Client, PagId, Retain};

    const NOW: u64 = 1_764_000_000;

    fn record(kind: PagKind, tokens: &[(&str, u64)]) -> Record {
        let held = |(cell, expires): &(&str, u64)| Held {
            client: Client::Keyring,
            cell: cell.parse().unwrap(),
            expires: *expires,
            since: 1,
            aliases: vec![],
        };
        let mut record = Record::new(61001, kind, String::new(), Retain::None);
        record.tokens = tokens.iter().map(held).collect();
        record
    }

    fn facts(records: Vec<Option<Record>>) -> Facts {
        Facts { helper: None, restarts: None, records, outside: None }
    }

    fn told(facts: &Facts) -> Vec<(String, u64)> {
        parse(&render(&families(facts, NOW, |lease| lease.process.pid == 1)))
    }

    fn value(told: &[(String, u64)], series: &str) -> Option<u64> {
        told.iter().find(|(name, _)| name == series).map(|(_, value)| *value)
    }

    #[test]
    fn without_helper_and_systemd_the_rest_is_told() {
        let told = told(&facts(vec![]));
        assert_eq!(value(&told, "pag_helper_up"), Some(0));
        assert_eq!(value(&told, "pag_pags{kind=\"user\"}"), Some(0), "zero is a number, too");
        for left_out in ["pag_managers_outside", "pag_helper_restarts_total", "pag_helper_start_time_seconds"] {
            assert_eq!(value(&told, left_out), None, "what is not known is not told as 0");
        }
    }

    #[test]
    fn pags_leases_and_tokens_are_counted() {
        let lease = |pid, role| Lease::new(Process { pid, start: 1 }, role, "sshd", "", None).unwrap();
        let mut first = record(PagKind::User, &[("a.test", NOW + 50), ("b.test", NOW)]);
        first.leases = vec![lease(1, LeaseKind::Login), lease(2, LeaseKind::Login), lease(1, LeaseKind::Manager)];
        first.last_seeding = Some(LastSeeding { at: NOW, ok: true, ticket: 0 });
        let mut second = record(PagKind::Session, &[("A.test", NOW + 40)]);
        second.last_seeding = Some(LastSeeding { at: NOW, ok: false, ticket: 0 });
        let mut follower = record(PagKind::User, &[("a.test", NOW + 3)]);
        follower.follows = Some(PagId::from(1));
        let told = told(&facts(vec![Some(first), Some(second), Some(follower), None]));
        for (series, expected) in [
            ("pag_pags{kind=\"user\"}", 2),
            ("pag_pags{kind=\"session\"}", 1),
            ("pag_pags{kind=\"own\"}", 0),
            ("pag_pags{kind=\"unreadable\"}", 1),
            ("pag_leases{role=\"login\"}", 1),
            ("pag_leases{role=\"manager\"}", 1),
            ("pag_tokens{client=\"keyring\",cell=\"a.test\",state=\"good\"}", 2),
            ("pag_tokens{client=\"keyring\",cell=\"b.test\",state=\"expired\"}", 1),
            ("pag_first_token_end_timestamp_seconds{client=\"keyring\",cell=\"a.test\"}", NOW + 40),
            ("pag_pags_last_seeding_failed", 1),
        ] {
            assert_eq!(value(&told, series), Some(expected), "{series}: {told:#?}");
        }
        assert!(
            !told.iter().any(|(name, _)| name.starts_with("pag_first") && name.contains("b.test")),
            "what has ended already ends no more: {told:#?}"
        );
    }

    #[test]
    fn what_the_helper_and_systemd_tell_is_told_on() {
        let job = JobCount { client: "kafs".to_owned(), cell: "a.test".to_owned(), ended: 7, failed: 2 };
        let helper = Some(Statistics { since: NOW - 5, jobs: vec![job], outside: vec![] });
        let told = told(&Facts { helper, restarts: Some(3), outside: Some(4), ..facts(vec![]) });
        for (series, expected) in [
            ("pag_helper_up", 1),
            ("pag_helper_start_time_seconds", NOW - 5),
            ("pag_helper_restarts_total", 3),
            ("pag_managers_outside", 4),
            ("pag_token_jobs_total{client=\"kafs\",cell=\"a.test\"}", 7),
            ("pag_token_job_failures_total{client=\"kafs\",cell=\"a.test\"}", 2),
        ] {
            assert_eq!(value(&told, series), Some(expected), "{series}: {told:#?}");
        }
    }

    #[test]
    fn users_make_no_more_series_than_a_few() {
        let cells: Vec<String> = (0..1000).map(|number| format!("c{number}.test")).collect();
        let tokens: Vec<(&str, u64)> = cells.iter().map(|cell| (&cell[..], NOW + 1)).collect();
        let told = told(&facts(vec![Some(record(PagKind::User, &tokens))]));
        assert!(told.len() < 4 * MOST, "{}", told.len());
        let others = value(&told, "pag_tokens{client=\"keyring\",cell=\"(others)\",state=\"good\"}");
        assert_eq!(others, Some(number(1000 - MOST)));
    }
}
