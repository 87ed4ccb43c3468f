//! One user: whether they have a PAG and tokens, and whether a service that their manager starts is in that PAG.

use std::time::{Duration, Instant};

use pag::afs;
use pag::report::User;
use pag::store::registry::Pag;
use pag::sys;
use pag::types::{Scope, TokenState};

use super::finding::{Finding, Problem};
use super::host::{Host, Look, Person, QUICK, one_line};
use super::managers::running;
use super::registry::pags;

/// Longest wait for the tokens of one ring.
const TOKENS: Duration = Duration::from_secs(3);
/// Longest wait for a service of the user's.
const SERVICE: Duration = Duration::from_secs(8);

/// The tokens of a PAG, in a word.
#[derive(Debug, PartialEq, Eq)]
enum Tokens {
    Good,
    Expired,
    None,
}

/// What this very program answers, run once more. A check runs in a thread, and the AFS clients look at the process.
fn own(host: &Host, look: &mut Look, verb: &str) -> Option<serde_json::Value> {
    let program = std::env::current_exe().ok()?;
    let (_, out, _) = look.ask(host, &[program.to_str()?, verb, "--json"], QUICK)?;
    serde_json::from_str(&out).ok()
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let Some(person) = &host.person else {
        look.left_out("one user's login: name one with --user");
        return;
    };
    let settings = host.settings_of("sshd", person.uid);
    if person.uid < settings.minimum_uid || settings.nopag {
        let reason = if settings.nopag { "nopag = yes" } else { "minimum_uid is higher" };
        let what = format!("{} gets no PAG: {reason}", User(person.uid));
        let why = "pag.conf has it so";
        let command = format!("pagctl status --explain --user {}", person.name);
        look.found(Finding::info(Problem::UserWithoutPag, what, why).mend(command));
        return;
    }
    if host.is_root {
        as_root(host, look, person);
    } else {
        as_user(host, look, person);
    }
}

fn as_root(host: &Host, look: &mut Look, person: &Person) {
    let user = User(person.uid);
    let pags: Vec<Pag> = match pags(host) {
        Ok(pags) => pags.into_iter().filter(|pag| pag.uid == person.uid).collect(),
        Err(why) => return look.left_out(format!("the PAGs of {user}: {why}")),
    };
    if pags.is_empty() {
        let words = ["loginctl", "show-user", "--property=Sessions", "--value", &person.name];
        let sessions = look.ask(host, &words, QUICK).filter(|(status, ..)| *status == 0);
        if sessions.is_some_and(|(_, sessions, _)| !sessions.trim().is_empty()) {
            let what = format!("{user} is logged in, and has no PAG");
            let why = "neither the login nor its services have tokens";
            let command = format!("pagctl log {}", person.name);
            look.found(Finding::warning(Problem::UserWithoutPag, what, why).mend(command));
        } else {
            look.left_out(format!("the tokens of {user}, who is not logged in"));
        }
        return;
    }
    for pag in &pags {
        let Ok(ring) = &pag.ring else { continue };
        let until = Instant::now() + TOKENS;
        let Ok(tokens) = afs::tokens(ring, until) else {
            look.left_out(format!("the tokens of PAG {}: they could not be read", pag.id));
            continue;
        };
        let states: Vec<TokenState> = tokens.iter().map(|token| token.state).collect();
        let ticket = pag.record.as_ref().map_or(0, |record| record.ticket);
        told(look, &format!("PAG {} of {user}", pag.id), &pag.id.to_string(), of(&states), ticket > sys::now());
    }
    let Some(managers) = running(host, look) else { return };
    if !managers.contains_key(&person.uid) {
        return look.left_out(format!("a probe: no user manager of {user} runs"));
    }
    let Some((ring, session)) = probe(host, look, person) else { return };
    let rings: Vec<i32> = pags.iter().filter_map(|pag| Some(pag.ring.as_ref().ok()?.serial.get())).collect();
    if ring.is_some_and(|ring| rings.contains(&ring)) {
        look.fine(format!("a service that the manager of {user} starts is in the PAG"));
        return;
    }
    let adopted = pags.iter().filter_map(|pag| pag.record.as_ref().ok()?.adopted);
    if adopted.into_iter().any(|keyring| Some(keyring.get()) == session) {
        look.fine(format!("a service that the manager of {user} starts has the PAG's tokens: the manager was adopted"));
    } else {
        outside(look, person, "pagctl adopt");
    }
}

fn as_user(host: &Host, look: &mut Look, person: &Person) {
    let Some(here) = own(host, look, "id") else { return };
    let ring = here.get("ring").and_then(serde_json::Value::as_i64);
    if here.get("member").and_then(serde_json::Value::as_bool) != Some(true) {
        let what = "you are in no PAG";
        let why = "this shell and what it starts have no tokens";
        look.found(Finding::warning(Problem::UserWithoutPag, what, why).mend("pagctl id"));
    } else if let Some(found) = own(host, look, "tokens") {
        let each = found.get("tokens").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let words = each.iter().filter_map(|token| token.get("state")?.as_str());
        let states: Vec<TokenState> = words.map(state).collect();
        told(look, "your PAG", "", of(&states), false);
    }
    let scope = host.settings_of("sshd", person.uid).scope;
    let Some((of_service, _)) = probe(host, look, person) else { return };
    let same = of_service.is_some() && (scope == Scope::Session || of_service.map(i64::from) == ring);
    if same {
        look.fine("a service that your manager starts is in the PAG");
    } else {
        outside(look, person, "sudo pagctl adopt");
    }
}

fn state(word: &str) -> TokenState {
    match word {
        "good" => TokenState::Good,
        _ => TokenState::Expired,
    }
}

fn of(states: &[TokenState]) -> Tokens {
    match states {
        [] => Tokens::None,
        states if states.contains(&TokenState::Good) => Tokens::Good,
        _ => Tokens::Expired,
    }
}

fn told(look: &mut Look, pag: &str, id: &str, tokens: Tokens, has_ticket: bool) {
    let command =
        if has_ticket || id.is_empty() { format!("pagctl renew {id}") } else { "kinit (as that user)".to_owned() };
    let command = command.trim_end();
    let why = if has_ticket {
        "its members read AFS as anyone does"
    } else {
        "its members read AFS as anyone does; it needs a good ticket first"
    };
    match tokens {
        Tokens::Good => look.fine(format!("{pag} has a good token")),
        Tokens::None => {
            let what = format!("{pag} has no tokens");
            look.found(Finding::warning(Problem::TokensMissing, what, why).mend(command));
        }
        Tokens::Expired => {
            let what = format!("the tokens of {pag} have expired or were revoked");
            look.found(Finding::warning(Problem::TokensExpired, what, why).mend(command));
        }
    }
}

/// A service is outside; `adopt` gives the manager the tokens without an end of its services.
fn outside(look: &mut Look, person: &Person, adopt: &str) {
    let what = format!("a service that the manager of {} starts is outside of the PAG", User(person.uid));
    let why = "timers, the desktop and other user services have no tokens; an adopted manager keeps its own ring";
    let command = format!("{adopt} {}", person.name);
    look.found(Finding::error(Problem::ProbeOutside, what, why).mend(command));
}

/// The ring, if it is one of ours, and the session keyring of a short service of the user's manager. No answer is a
/// finding.
fn probe(host: &Host, look: &mut Look, person: &Person) -> Option<(Option<i32>, Option<i32>)> {
    let program = std::env::current_exe().ok()?;
    let run = ["systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect", "--property=RuntimeMaxSec=5", "--"];
    let service = [&run[..], &[program.to_str()?, "id", "--json"]].concat();
    let (uid, gid) = (format!("--reuid={}", person.uid), format!("--regid={}", person.gid));
    let directory = format!("XDG_RUNTIME_DIR=/run/user/{}", person.uid);
    // As the user, without anything that is root's: the user's manager is at the other end.
    let as_user = ["setsid", "setpriv", &uid, &gid, "--init-groups", "--reset-env", "env", &directory];
    let words = if host.is_root { [&as_user[..], &service].concat() } else { service };
    let (_, out, err) = look.ask(host, &words, SERVICE)?;
    let Ok(answer) = serde_json::from_str::<serde_json::Value>(&out) else {
        let what = format!("the manager of {} starts no service: {}", User(person.uid), one_line(&err));
        let why = "whether services are in the PAG cannot be told";
        let command = format!("systemctl status user@{}.service", person.uid);
        look.found(Finding::warning(Problem::ProbeFailed, what, why).mend(command));
        return None;
    };
    let serial = |key: &str| i32::try_from(answer.get(key)?.as_i64()?).ok();
    Some((serial("ring"), serial("session")))
}
