//! What an expression says, as a tree.

/// An expression and where it begins in the text, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    /// What comes out, as far as it matters to costs; known once the expression is checked.
    pub(crate) sort: Sort,
    pub(crate) kind: Kind,
}

impl Expr {
    pub(crate) fn new(at: usize, kind: Kind) -> Self {
        Expr { at, sort: Sort::Any, kind }
    }
}

/// Types, as far as costs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Numbers, booleans, moments and spans of time, also optional ones: all of the same size.
    Scalar,
    Text,
    Bytes,
    /// Lists of texts or bytes.
    Texts,
    /// Other lists.
    List,
    Map,
    /// What has fields.
    Object,
    /// What only its functions know.
    Opaque,
    /// Everything else.
    Any,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Literal(Literal),
    /// A variable; the checker makes one also of a qualified name such as `variables.a`.
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        access: Access,
    },
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// Operators are functions with names such as `_+_`.
    Call {
        function: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Conditional(Box<[Expr; 3]>),
    /// Items, and whether each is an optional that may be missing.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// An object of a named type.
    Message {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    Comprehension(Box<Comprehension>),
}

/// How a field is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// `a.b`
    Value,
    /// `a.?b`
    Optional,
    /// `has(a.b)`
    Presence,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// A macro over the items of a list or a map, or over what an optional holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comprehension {
    pub(crate) does: Does,
    pub(crate) range: Expr,
    /// The variable of the item; with `second`, that of its index or key.
    pub(crate) first: String,
    pub(crate) second: Option<String>,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// `map` and `transformList`.
    Map,
    TransformMap,
    TransformMapEntry,
    SortBy,
    OptMap,
    OptFlatMap,
}
