//! Rows in columns.

/// One line for each row, after `indent`. Each column is as wide as its widest cell, and two blanks stand between columns.
pub(crate) fn table<const COLUMNS: usize>(indent: &str, rows: &[[String; COLUMNS]]) -> String {
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += indent;
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
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
