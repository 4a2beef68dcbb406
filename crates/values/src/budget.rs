//! What a value may cost.

/// Lists and maps within each other, at most. `serde_json` reads 127, and what it read has to be written and read again
/// inside something else.
pub const DEEPEST: usize = 120;

/// What the values of one body may take in memory, in bytes.
///
/// Twenty times the largest body (3 MiB): a list of numbers of one digit takes sixteen times its bytes, and so fits.
/// Objects weigh most, because the smallest one with a field takes a whole node of a tree: some 90,000 of them fit, more
/// than 35 bytes of body each. `[{},{},...]` of a million objects, each of which defaults and faults would make larger
/// again, does not.
pub const MOST_MEMORY: usize = 64 << 20;

/// A scalar's share, and an item's in a list.
const VALUE: usize = 32;
/// A map's share: a node of the tree that its fields lie in has room for eleven.
const MAP: usize = 640;
/// A field's share of its map, beyond the text of its name.
const FIELD: usize = 64;

/// More than may be: a body that is small on the wire and large in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds too many values: they would take more than {} MiB of memory", MOST_MEMORY >> 20)]
pub struct Exceeded;

/// Counts what values take before they are made.
#[derive(Debug, Clone)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Budget(MOST_MEMORY)
    }
}

impl Budget {
    /// A budget of that many bytes.
    pub fn new(bytes: usize) -> Self {
        Budget(bytes)
    }

    /// Counts a number, `true`, `null`, or a text of `length` bytes; also the place of any value in a list.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn scalar(&mut self, length: usize) -> Result<(), Exceeded> {
        self.take(VALUE + length)
    }

    /// Counts a list, without its items.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn list(&mut self) -> Result<(), Exceeded> {
        self.take(VALUE)
    }

    /// Counts a map, without its fields.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn map(&mut self) -> Result<(), Exceeded> {
        self.take(MAP)
    }

    /// Counts a field's name.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn field(&mut self, name: &str) -> Result<(), Exceeded> {
        self.take(FIELD + name.len())
    }

    /// Counts a whole value.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn value(&mut self, value: &serde_json::Value) -> Result<(), Exceeded> {
        use serde_json::Value;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.scalar(0),
            Value::String(text) => self.scalar(text.len()),
            Value::Array(list) => {
                self.list()?;
                list.iter().try_for_each(|item| self.value(item))
            }
            Value::Object(map) => {
                self.map()?;
                map.iter().try_for_each(|(name, value)| {
                    self.field(name)?;
                    self.value(value)
                })
            }
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.0 = self.0.checked_sub(bytes).ok_or(Exceeded)?;
        Ok(())
    }
}
