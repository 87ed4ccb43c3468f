//! The encoding of what a child writes to its parent: fields of bytes, each behind its length.

use super::fork::Put;

/// Writes fields. False if no more can be written. Allocates nothing.
pub fn write_fields(put: Put<'_>, fields: &[&[u8]]) -> bool {
    let mut write = |field: &[u8]| {
        let length = u32::try_from(field.len());
        length.is_ok_and(|length| put(&length.to_ne_bytes())) && put(field)
    };
    fields.iter().all(|field| write(field))
}

/// How many bytes these fields take when they are written.
pub fn length_of(fields: &[&[u8]]) -> usize {
    fields.iter().map(|field| field.len() + size_of::<u32>()).fold(0, usize::saturating_add)
}

/// The fields that a child has written. They end before the first incomplete one.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads the bytes that a child has written.
    pub fn new(bytes: &'a [u8]) -> Self {
        Fields(bytes)
    }

    /// The next field, if it has exactly this length.
    pub fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.next()?.try_into().ok()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fields: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(part);
            true
        };
        assert!(write_fields(&mut put, fields));
        bytes
    }

    #[test]
    fn a_field_that_is_cut_off_is_none() {
        let bytes = written(&[b"one", b"two"]);
        assert_eq!(Fields::new(&bytes[..bytes.len() - 1]).collect::<Vec<_>>(), [b"one"]);
        assert_eq!(Fields::new(&bytes).array::<2>(), None, "of another length");
        assert!(!write_fields(&mut |_| false, &[b"one"]));
    }

    proptest! {
        #[test]
        fn fields_are_read_as_they_were_written(fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let fields: Vec<&[u8]> = fields.iter().map(|field| &field[..]).collect();
            let bytes = written(&fields);
            prop_assert_eq!(Fields::new(&bytes).collect::<Vec<_>>(), &fields[..]);
            prop_assert_eq!(bytes.len(), length_of(&fields));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Fields::new(&bytes).for_each(drop);
        }
    }
}
