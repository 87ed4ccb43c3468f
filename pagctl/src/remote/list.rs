//! `pagctl list`: the PAGs that the caller may see, a line for each.

use pag::report::in_words;
use pag::sys;
use pag::types::TokenState;

use super::connection::{ANSWER, Helper, PATIENCE};
use super::reply::{ListRow, ListedPag};
use crate::output::{self, Answer, Error, LeaseJson, PagJson, TokenJson, out, outln};

/// The columns, and in which order they give way on a narrow terminal: the highest number first. 0 stays.
const COLUMNS: [(&str, u8); 8] =
    [("PAG", 0), ("USER", 0), ("KIND", 5), ("LOGINS", 1), ("AGE", 4), ("TOKENS", 0), ("FOLLOWS", 2), ("PRINCIPAL", 3)];

type Row = [String; COLUMNS.len()];

/// Prints the list. `wide` leaves no column out.
///
/// # Errors
/// When the helper does not run or refuses.
pub(super) async fn run(helper: &Helper, all: bool, json: bool, wide: bool) -> Result<Answer, Error> {
    let rows: Vec<ListRow> = if all {
        helper.wait("list the PAGs of all users", PATIENCE, helper.manager.list_all_pags()).await?
    } else {
        helper.wait("list PAGs", ANSWER, helper.manager.list_pags()).await?
    };
    if rows.is_empty() && !json {
        outln!("There are no PAGs that you may see.");
        return Ok(Answer::AllRight);
    }
    let [own, ..] = sys::ids().uid;
    let mut pags = Vec::new();
    for row in rows {
        // For the PAGs of other users polkit would ask for a password, for each.
        let may_look = own == 0 || row.1 == own;
        let path = row.6.clone();
        let known = if may_look { helper.wait("list PAGs", ANSWER, helper.pag_at(&path)).await.ok() } else { None };
        pags.push(known.unwrap_or_else(|| ListedPag::from(row).into()));
    }
    if json {
        output::json(&pags);
        return Ok(Answer::AllRight);
    }
    let mut lines: Vec<Row> = vec![COLUMNS.map(|(head, _)| head.to_owned())];
    lines.extend(pags.into_iter().map(|pag| line(pag, sys::now())));
    let width = sys::terminal_width().filter(|_| !wide);
    out!("{}", fitted(&lines, width.unwrap_or(usize::MAX)));
    Ok(Answer::AllRight)
}

/// The line of a PAG, with `-` for what is not known.
fn line(pag: PagJson, now: u64) -> Row {
    let none = || "-".to_owned();
    let (logins, tokens) =
        (pag.leases.as_deref().map(logins), pag.tokens.as_deref().map(|tokens| lasting(tokens, now)));
    let follows = pag.follows.or_else(|| pag.chosen.filter(|chosen| *chosen).map(|_| "(chosen)".to_owned()));
    let age = pag.made.map(|made| in_words(now.saturating_sub(made)));
    [
        pag.pag,
        pag.user.unwrap_or_else(|| pag.uid.to_string()),
        pag.kind.unwrap_or_else(none),
        logins.unwrap_or_else(none),
        age.unwrap_or_else(none),
        tokens.unwrap_or_else(none),
        follows.unwrap_or_else(none),
        pag.principal.unwrap_or_else(none),
    ]
}

/// The services and terminals of a PAG's leases: the first, and how many more.
fn logins(leases: &[LeaseJson]) -> String {
    let living: Vec<_> = leases.iter().filter(|lease| lease.alive).collect();
    let Some(first) = living.first() else { return "-".to_owned() };
    let tty = first.tty.as_ref().map(|tty| format!(" {tty}")).unwrap_or_default();
    let more = if living.len() > 1 { format!(" +{}", living.len() - 1) } else { String::new() };
    format!("{}{tty}{more}", first.service)
}

/// How long the good tokens of a PAG last: until the first of them ends.
fn lasting(tokens: &[TokenJson], now: u64) -> String {
    let good: Vec<_> = tokens.iter().filter(|token| token.state == TokenState::Good.as_str()).collect();
    match good.iter().filter_map(|token| token.expires).min() {
        _ if good.is_empty() => "none".to_owned(),
        Some(end) => format!("for {}", in_words(end.saturating_sub(now))),
        None => "good".to_owned(),
    }
}

/// The rows in columns. Columns give way until a line fits into the width.
fn fitted(rows: &[Row], width: usize) -> String {
    let widths = output::widths(rows);
    let highest = COLUMNS.iter().map(|(_, order)| *order).max().unwrap_or(0);
    let is_kept = |most: u8| move |(_, order): &(&str, u8)| *order <= most;
    let taken = |most: u8| -> usize {
        let kept = COLUMNS.iter().zip(widths).filter(|(column, _)| is_kept(most)(column));
        kept.map(|(_, width)| width + 2).sum::<usize>().saturating_sub(2)
    };
    let most = (0..=highest).rev().find(|most| taken(*most) <= width).unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).zip(&COLUMNS).filter(|(_, column)| is_kept(most)(column));
        text += &output::line(cells.map(|(cell, _)| cell));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pag_that_may_not_be_looked_at_has_the_same_shape() {
        let path = zbus::ObjectPath::try_from("/org/pam_pag/Pag1/pag/5f2e91c07ab3d846").unwrap().into();
        let row = ("5f2e91c07ab3d846".to_owned(), 1, "user".to_owned(), String::new(), String::new(), false, path);
        let pag = PagJson::from(ListedPag::from(row));
        output::schema::check("list", &serde_json::to_value([&pag]).unwrap());
        assert_eq!(line(pag, 0)[3..], ["-"; 5].map(str::to_owned));
    }

    #[test]
    fn columns_give_way_until_the_terminal_is_wide_enough() {
        let row = |words: [&str; COLUMNS.len()]| words.map(str::to_owned);
        let rows = [
            COLUMNS.map(|(head, _)| head.to_owned()),
            row(["5f2e91c07ab3d846", "alice", "user", "sshd pts/0 +1", "3 h", "for 9 h", "-", "alice@EXAMPLE.TEST"]),
        ];
        let all = fitted(&rows, usize::MAX);
        assert!(
            all.starts_with("PAG               USER   KIND  LOGINS         AGE  TOKENS   FOLLOWS  PRINCIPAL\n"),
            "{all}"
        );
        for width in [20, 40, 60, 80, 100] {
            let text = fitted(&rows, width);
            assert!(width < 40 || text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(text.contains("TOKENS") && text.contains("alice"), "{width}: {text}");
        }
        assert!(!fitted(&rows, 60).contains("KIND") && fitted(&rows, 60).contains("LOGINS"));
    }
}
