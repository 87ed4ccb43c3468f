//! Rows in columns.

/// One line for each row, after `indent`. Each column is as wide as its widest cell, and two blanks stand between columns.
pub(crate) fn table<const COLUMNS: usize>(indent: &str, rows: &[[String; COLUMNS]]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for row in rows {
        text += indent;
        text += &line(row.iter().zip(widths));
    }
    text
}

/// The widths of columns: that of the widest cell in each.
pub(crate) fn widths<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> [usize; COLUMNS] {
    std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    })
}

/// One line of cells, each with its width.
pub(crate) fn line<'a>(cells: impl Iterator<Item = (&'a String, usize)>) -> String {
    let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb"], ["öäü", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(" ", &rows), " a    bb\n öäü\n");
        assert_eq!(table::<0>(" ", &[]), "");
    }
}
