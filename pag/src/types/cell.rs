//! The name of an AFS cell.

use std::fmt;
use std::str::FromStr;

/// Name of a cell: a name that DNS would take, at most 64 characters (MAXCELLCHARS of OpenAFS, src/afs/afs.h).
///
/// Case does not distinguish cells for any AFS client (OpenAFS, src/auth/cellconfig.c, afsconf_GetCellInfo; Linux,
/// fs/afs/cell.c, afs_alloc_cell). The name is shown as it was written.
#[derive(Debug, Clone)]
pub struct Cell(String);

impl Cell {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Cell {}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let dotted = !text.starts_with('-') && text.split('.').all(|part| !part.is_empty());
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) && dotted {
            Ok(Cell(text.to_owned()))
        } else {
            Err("the name of a cell, such as example.org".to_owned())
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_names_of_cells() {
        for good in ["example.org", "a", "cs_dept.example.org"] {
            assert!(good.parse::<Cell>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "a..b", "a b", "-c", "a/b", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Cell>().is_err(), "{bad}");
        }
    }
}
