//! Protobuf's wire form: a message is a row of numbered values whose types only a table tells.
//!
//! Public contract: <https://protobuf.dev/programming-guides/encoding/>.

use super::Failure;

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of four or eight bytes; no field of the table is.
    Fixed,
}

/// The fields of a message in their order.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            // What follows a broken field has no meaning.
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), Failure> {
        let key = varint(&mut self.0)?;
        let number = u32::try_from(key >> 3).map_err(|_| "a field's number is too large")?;
        if number == 0 {
            return Err("a field has the number 0".into());
        }
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = varint(&mut self.0)?;
                Wire::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err("a field has a wire type that is not used".into()),
        };
        Ok((number, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it ends within a field")?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Takes a number of seven bits a byte, lowest first.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Failure> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("it ends within a number")?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_are_specified() {
        let check = |mut bytes: &[u8]| {
            varint(&mut bytes).map(|number| (number, bytes.len())).map_err(|failure| failure.why)
        };
        assert_eq!(check(&[0]), Ok((0, 0)));
        assert_eq!(check(&[0x96, 0x01, 0x7f]), Ok((150, 1)));
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(check(&minus_one), Ok((u64::MAX, 0)));
        assert_eq!(check(&[0xff; 11]), Err("a number is too long"));
        assert_eq!(check(&[0x80]), Err("it ends within a number"));
        assert_eq!(check(&[]), Err("it ends within a number"));
    }

    #[test]
    fn a_broken_field_ends_the_message() {
        for (bytes, why) in [
            (&[0x08, 1, 0x12, 5, 0][..], "it ends within a field"),
            (&[0x08, 1, 0x11, 0, 0][..], "it ends within a field"),
            (&[0x08, 1, 0x0b, 0][..], "a field has a wire type that is not used"),
            (&[0x08, 1, 0x00, 0][..], "a field has the number 0"),
        ] {
            let found: Vec<_> = Fields(bytes)
                .map(|field| field.map(|_| ()).map_err(|failure| failure.why))
                .collect();
            assert_eq!(found, [Ok(()), Err(why)]);
        }
    }
}
