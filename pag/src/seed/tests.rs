use std::ffi::CString;
use std::time::Duration;

use super::budget::Budget;
use super::excluded::{Excluded, not_of_pag};
use super::job::runs;
use super::outcome::{Alias, Brought, brought, held, missed, note_aliases};
use super::wanted::{Wanted, are_good, cell_of_path, wanted};
use crate::config::Settings;
use crate::config::account::Account;
use crate::store::record::Held;
use crate::sys::Passwd;
use crate::types::{Cell, Client, Principal, Token, TokenState};

fn cell(name: &str) -> Cell {
    name.parse().unwrap()
}

#[test]
fn a_ticket_of_another_identity_is_not_for_the_pag() {
    let account = Account::of_realm("alice", "R");
    let why = |who: &str, identity: &str| not_of_pag(&Principal::parse(who).unwrap(), identity, &account);
    for (who, identity) in [("alice@R", "alice@R"), ("alice/admin@R", "alice/admin@R"), ("alice@R", "")] {
        assert_eq!(why(who, identity), None, "{who} in a PAG of {identity:?}");
    }
    for (who, identity) in [("alice/admin@R", "alice@R"), ("alice@R", "alice/admin@R"), ("alice/admin@R", "")] {
        assert!(why(who, identity).is_some_and(|why| why.contains(who)), "{who} in a PAG of {identity:?}");
    }
}

#[test]
fn the_cell_of_a_home_is_read_from_its_path() {
    assert_eq!(cell_of_path(b"/afs/example.test/user/alice"), Some(cell("example.test")));
    assert_eq!(cell_of_path(b"/afs/.example.test/user/alice"), Some(cell("example.test")));
    for path in ["/home/alice", "/afs", "/afs/", "/afs//x", "afs/example.test", "/afs/a b/x"] {
        assert_eq!(cell_of_path(path.as_bytes()), None, "{path}");
    }
}

fn want(client: Client, cells: &[&str]) -> Vec<Wanted> {
    cells.iter().map(|name| Wanted { client, cell: Some(cell(name)) }).collect()
}

#[test]
fn every_wanted_cell_needs_a_good_token() {
    let held =
        |name: &str, expires| Held { client: Client::Keyring, cell: cell(name), expires, since: 0, aliases: vec![] };
    let want = |cells: &[&str]| want(Client::Keyring, cells);
    let any = [Wanted { client: Client::Keyring, cell: None }];
    let now = 100_000;
    let both = [held("a.test", now + 3600), held("b.test", now + 60)];
    assert!(are_good(&both, &want(&["a.test"]), now));
    assert!(!are_good(&both, &want(&["a.test", "b.test"]), now));
    assert!(!are_good(&both, &want(&["c.test"]), now));
    assert!(!are_good(&both, &any, now));
    assert!(are_good(&both[..1], &any, now));
    assert!(!are_good(&[], &any, now));
}

#[test]
fn every_client_needs_a_good_token_of_its_own() {
    let held = |client| Held { client, cell: cell("a.test"), expires: 3600, since: 0, aliases: vec![] };
    let both = [want(Client::OpenAfs, &["a.test"]), want(Client::Kafs, &["a.test"])].concat();
    assert!(!are_good(&[held(Client::OpenAfs)], &both, 0));
    assert!(are_good(&[held(Client::OpenAfs), held(Client::Kafs)], &both, 0));
    let any = [Wanted { client: Client::Kafs, cell: None }];
    assert!(!are_good(&[held(Client::OpenAfs)], &any, 0));
}

fn settings(more: &str) -> Settings {
    let top = tempfile::tempdir().unwrap();
    let main = top.path().join("pag.conf");
    std::fs::write(&main, format!("[pag]\n{more}\n")).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&main).unwrap());
    let dirs = crate::config::Dirs { main, drop_ins: vec![], login_defs: "/dev/null".into(), owner };
    let (settings, complaints) = crate::config::host(&dirs);
    assert!(complaints.iter().all(|c| c.to_string().contains("/dev/null")), "{complaints:?}");
    settings
}

fn alice(home: &str) -> Passwd {
    Passwd { name: c"alice".to_owned(), uid: 1001, gid: 1001, home: CString::new(home).unwrap() }
}

#[test]
fn a_login_wants_the_hosts_own_cell_if_the_configuration_names_none() {
    let own = |client| Some(cell(if client == Client::Kafs { "kafs.test" } else { "own.test" }));
    let both = [Client::OpenAfs, Client::Kafs];
    let cells_of = |more: &str, home: &str| {
        let all = wanted(&both, &settings(more), &alice(home), own);
        all.iter().map(|one| format!("{} {one}", one.client)).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(cells_of("", "/home/alice"), "openafs own.test, kafs kafs.test");
    assert_eq!(cells_of("afs_cells = a.test", "/afs/b.test/x"), "openafs a.test, kafs a.test");
    let named = "afs_cells = a.test\naklog_homedir = yes";
    assert_eq!(cells_of(named, "/afs/b.test/x"), "openafs a.test, openafs b.test, kafs a.test, kafs b.test");
    assert_eq!(cells_of("aklog_homedir = yes", "/home/alice"), "openafs the default cell, kafs kafs.test");
}

#[test]
fn each_client_has_its_own_seeder() {
    let commands = |clients: &[Client], more: &str, there: bool| {
        let nothing = Excluded::default();
        let (runs, missing) = runs(clients, &settings(more), &alice("/afs/b.test/x"), &nothing, |_| there, |_| None);
        let runs = runs.into_iter().map(|run| format!("{}{}", run.words.join(" "), if run.openafs { "!" } else { "" }));
        runs.chain(missing.iter().map(|why| why.split(':').next().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let all = [Client::Keyring, Client::OpenAfs, Client::Kafs];
    let (openafs, kafs) = (&all[1..2], &all[2..]);
    assert_eq!(commands(openafs, "", true), ["/usr/bin/aklog!"]);
    assert_eq!(commands(openafs, "", false), ["there is no /usr/bin/aklog"]);
    let full = "afs_cells = a.test,c.test\naklog_homedir = yes";
    assert_eq!(commands(openafs, full, true), ["/usr/bin/aklog -p /afs/b.test/x -c a.test -c c.test!"]);
    assert_eq!(
        commands(kafs, full, true),
        ["/usr/bin/aklog-kafs a.test", "/usr/bin/aklog-kafs c.test", "/usr/bin/aklog-kafs b.test"]
    );
    assert_eq!(commands(kafs, "kafs_program = /x,-q", false), ["/x -q"]);
    assert_eq!(commands(kafs, "program = /x", false), ["there is no /usr/bin/aklog-kafs"]);
    assert_eq!(commands(&all, "program = /x,-y", true), ["/x -y!", "/usr/bin/aklog-kafs"]);
    assert_eq!(commands(&all[..1], "", true), ["no seeder is configured"]);
    assert_eq!(commands(&all[..1], "program = /x", true), ["/x"]);
    assert_eq!(commands(&[], "program = /x", true), [""; 0]);
}

#[test]
fn a_seeder_gets_no_excluded_token() {
    let own = |_| Some(cell("own.test"));
    let commands = |clients: &[Client], more: &str, home: &str, excluded: &str| {
        let (runs, _) = runs(clients, &settings(more), &alice(home), &Excluded::parse(excluded), |_| true, own);
        runs.into_iter().map(|run| run.words.join(" ")).collect::<Vec<_>>()
    };
    let (openafs, kafs) = (&[Client::OpenAfs][..], &[Client::Kafs][..]);
    let both = "afs_cells = a.test,b.test";
    assert_eq!(commands(openafs, both, "/home/x", "b.test"), ["/usr/bin/aklog -c a.test"]);
    assert_eq!(commands(kafs, both, "/home/x", "b.test"), ["/usr/bin/aklog-kafs a.test"]);
    let home = "afs_cells = a.test\naklog_homedir = yes";
    assert_eq!(commands(openafs, home, "/afs/b.test/x", "b.test"), ["/usr/bin/aklog -c a.test"]);
    assert_eq!(commands(openafs, home, "/afs/b.test/x", "a.test"), ["/usr/bin/aklog -p /afs/b.test/x"]);
    // The path of this home names no cell. pag-seed discards the token that the seeder brings.
    assert_eq!(commands(openafs, home, "/home/x", "a.test"), ["/usr/bin/aklog -p /home/x"]);
    for clients in [openafs, kafs] {
        assert_eq!(commands(clients, both, "/home/x", "a.test b.test"), [""; 0]);
        assert_eq!(commands(clients, home, "/afs/b.test/x", "a.test b.test"), [""; 0]);
        assert_eq!(commands(clients, "", "/home/x", "own.test"), [""; 0], "the host's own cell");
        assert_eq!(commands(clients, "", "/home/x", "other.test").len(), 1);
        assert_eq!(commands(clients, both, "/home/x", "*"), [""; 0]);
    }
}

#[test]
fn excluded_tokens_are_written_to_a_variable_and_read_from_it() {
    let one = Excluded { all: true, cells: vec![cell("a.test"), cell("b.test")] };
    assert_eq!(one.to_string(), "* a.test b.test");
    assert_eq!(Excluded::parse(&one.to_string()), one);
    assert!(Excluded::parse("").is_nothing() && !Excluded::parse("a.test").is_nothing());
}

#[test]
fn a_failure_names_the_cells_without_a_new_token() {
    let token = |name: &str, expires| Token {
        client: Client::Kafs,
        cell: cell(name),
        principal: None,
        vice_id: None,
        kind: None,
        expires,
        state: TokenState::Good,
    };
    let names_missed = |before: &[Token], after: &[Token]| -> String {
        let missed = missed(&want(Client::Kafs, &["a.test", "b.test"]), before, after);
        missed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let (a, b) = (token("a.test", 50), token("b.test", 50));
    let later = token("a.test", 90);
    assert_eq!(names_missed(&[], std::slice::from_ref(&a)), "b.test");
    assert_eq!(names_missed(&[], &[]), "a.test b.test");
    assert_eq!(names_missed(&[a.clone(), b.clone()], &[later, b.clone()]), "b.test", "b.test has its old token");
    let revoked = Token { state: TokenState::Revoked, ..b.clone() };
    assert_eq!(names_missed(&[a.clone(), b.clone()], &[a.clone(), revoked]), "b.test");
    assert_eq!(names_missed(&[a.clone(), b.clone()], &[a, b]), "a.test b.test", "nothing has changed");
}

#[test]
fn the_tokens_in_the_ring_decide_and_not_the_status_of_a_seeder() {
    let outcome = |names: &[&str], before: Option<&[(&str, u64)]>, after: &[(&str, u64)]| -> String {
        let before = before.map(|before| tokens(Client::OpenAfs, before));
        let after = tokens(Client::OpenAfs, after);
        let Brought { got, missed, aliases } = brought(&want(Client::OpenAfs, names), before.as_deref(), &after);
        let list = |all: &[Wanted]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let aliases: Vec<String> = aliases.iter().map(|one| format!("{}={}", one.name, one.cell)).collect();
        format!("{}|{}|{}", list(&got), list(&missed), aliases.join(" "))
    };
    let none = Some(&[][..]);
    assert_eq!(outcome(&["a.test"], none, &[("a.test", 9)]), "a.test||");
    assert_eq!(outcome(&["A.TEST"], none, &[("a.test", 9)]), "A.TEST||", "upper and lower case are the same");
    assert_eq!(outcome(&["a.test"], none, &[]), "|a.test|", "the seeder has gone into the background");
    assert_eq!(outcome(&["a"], none, &[("a.test", 9)]), "a||a=a.test");
    assert_eq!(
        outcome(&["a"], Some(&[("b.test", 9)]), &[("b.test", 9)]),
        "|a|",
        "the seeder has not brought an old token"
    );
    assert_eq!(outcome(&["a"], Some(&[("a.test", 8)]), &[("a.test", 9)]), "a||a=a.test");
    assert_eq!(outcome(&["a", "b.test"], none, &[("a.test", 9), ("b.test", 9)]), "a b.test||a=a.test");
    assert_eq!(outcome(&["a", "b.test"], none, &[("b.test", 9)]), "b.test|a|", "one token is not for two names");
    assert_eq!(outcome(&["a"], None, &[("a.test", 9)]), "a||", "the ring was not read before");
    assert_eq!(outcome(&["a.test"], Some(&[("a.test", 9)]), &[]), "||", "a member has cut the token out");
    let default = [Wanted { client: Client::OpenAfs, cell: None }];
    assert_eq!(brought(&default, None, &tokens(Client::OpenAfs, &[("x.test", 9)])).got, default);
    assert_eq!(brought(&default, None, &tokens(Client::Kafs, &[("x.test", 9)])).missed, default);
}

#[test]
fn an_alias_that_has_brought_a_token_is_known_at_the_next_login() {
    let of = |all: &[(&str, u64)], before: &[Held]| held(&tokens(Client::OpenAfs, all), before, 0);
    let alias = |name: &str, of: &str| Alias { client: Client::OpenAfs, name: cell(name), cell: cell(of) };
    let mut first = of(&[("a.test", 3600), ("b.test", 3600)], &[]);
    let wanted = want(Client::OpenAfs, &["EX", "B.TEST"]);
    assert!(!are_good(&first, &wanted, 0));
    note_aliases(&mut first, &[alias("EX", "a.test"), alias("ex", "a.test"), alias("A.test", "a.test")]);
    assert_eq!(first[0].aliases, [cell("ex")], "each name once, and not its own");
    assert!(are_good(&first, &wanted, 0));
    let renewed = of(&[("a.test", 7200), ("b.test", 3600)], &first);
    assert!(are_good(&renewed, &wanted, 0), "a new token of the cell has the cell's names");
    assert!(!are_good(&of(&[("b.test", 3600)], &first), &wanted, 0), "without the token the name is of no use");
    let mut both = of(&[("a.test", 3600), ("b.test", 5)], &[]);
    note_aliases(&mut both, &[alias("ex", "a.test"), alias("ex", "b.test")]);
    assert!(!are_good(&both, &want(Client::OpenAfs, &["ex"]), 4), "an alias of two cells needs good tokens of both");
}

#[test]
fn a_token_keeps_the_time_when_it_was_first_seen() {
    let token = Token {
        client: Client::Kafs,
        cell: cell("a.test"),
        principal: None,
        vice_id: None,
        kind: None,
        expires: 50,
        state: TokenState::Good,
    };
    let again = |token: Token, before: &[Held]| held(&[token], before, 20)[0].since;
    let first = held(std::slice::from_ref(&token), &[], 10);
    assert_eq!(first[0].since, 10);
    assert_eq!(again(token.clone(), &first), 10);
    assert_eq!(again(Token { expires: 60, ..token.clone() }, &first), 20);
    assert_eq!(again(Token { client: Client::OpenAfs, ..token.clone() }, &first), 20);
    assert!(held(&[Token { state: TokenState::Revoked, ..token }], &first, 20).is_empty());
}

#[test]
fn a_budget_counts_the_time_of_earlier_hooks() {
    let budget = Budget::new(Duration::from_secs(5), Duration::from_secs(6));
    assert!(budget.left().is_zero());
    assert!(budget.spent() >= Duration::from_secs(6));
}

fn tokens(client: Client, all: &[(&str, u64)]) -> Vec<Token> {
    let token = |(name, expires): &(&str, u64)| Token {
        client,
        cell: cell(name),
        principal: None,
        vice_id: None,
        kind: None,
        expires: *expires,
        state: TokenState::Good,
    };
    all.iter().map(token).collect()
}
