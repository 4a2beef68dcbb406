//! The grammar of CEL (`cel-spec/doc/langdef.md`), with optional access as cel-go has it.

use crate::ast::{Access, Comprehension, Does, Expr, Kind, Literal};
use crate::error::Fault;
use crate::lexer::{Token, tokens};

/// The longest expression, in characters: cel-go's default for `ExpressionSizeCodePointLimit`.
const LONGEST: usize = 100_000;
/// The deepest tree. Parser, checker and evaluator walk over it on the stack, so it must fit into a thread's. cel-go allows
/// 250 levels of its grammar.
const DEEPEST: usize = 150;

const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The expression in `text`.
pub(crate) fn parse(text: &str) -> Result<Expr, Fault> {
    let size = text.chars().count();
    if size > LONGEST {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {LONGEST}");
        return Err(Fault { at: 0, message });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, nested: 0 };
    let (expr, _) = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

/// An expression with its depth.
type Parsed = Result<(Expr, usize), Fault>;

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    nested: usize,
}

/// Binary operators from the weakest to the strongest; `&&` and `||` apart.
const OPERATORS: [&[(&str, &str)]; 3] = [
    &[
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.accept(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let found = match self.peek() {
            Token::Ident(name, _) => name.clone(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::End => "<EOF>".to_owned(),
            Token::String(_) | Token::Bytes(_) => "a string".to_owned(),
            _ => "a number".to_owned(),
        };
        Fault {
            at: self.at(),
            message: format!("Syntax error: mismatched input '{found}' expecting '{wanted}'"),
        }
    }

    fn too_deep(&self) -> Fault {
        Fault { at: self.at(), message: format!("expression recursion limit exceeded: {DEEPEST}") }
    }

    fn made(&self, at: usize, kind: Kind, depth: usize) -> Parsed {
        if depth >= DEEPEST { Err(self.too_deep()) } else { Ok((Expr::new(at, kind), depth + 1)) }
    }

    fn expression(&mut self) -> Parsed {
        if self.nested >= DEEPEST {
            return Err(self.too_deep());
        }
        self.nested += 1;
        let parsed = self.conditional();
        self.nested -= 1;
        parsed
    }

    fn conditional(&mut self) -> Parsed {
        let (condition, depth) = self.logical("||", true)?;
        let at = self.at();
        if !self.accept("?") {
            return Ok((condition, depth));
        }
        let (then, depth_of_then) = self.logical("||", true)?;
        self.expect(":")?;
        let (otherwise, depth_of_else) = self.expression()?;
        let depth = depth.max(depth_of_then).max(depth_of_else);
        self.made(at, Kind::Conditional(Box::new([condition, then, otherwise])), depth)
    }

    /// A chain of `||` or, within it, of `&&`: as a balanced tree, since chains are long.
    fn logical(&mut self, sign: &str, or: bool) -> Parsed {
        let mut terms = Vec::new();
        let mut places = Vec::new();
        loop {
            terms.push(if or { self.logical("&&", false)? } else { self.binary(0)? });
            places.push(self.at());
            if !self.accept(sign) {
                return self.balanced(terms, &places, or);
            }
        }
    }

    fn balanced(&self, mut terms: Vec<(Expr, usize)>, places: &[usize], or: bool) -> Parsed {
        if terms.len() == 1
            && let Some(term) = terms.pop()
        {
            return Ok(term);
        }
        let middle = terms.len() / 2;
        let right = terms.split_off(middle);
        let (left, depth) = self.balanced(terms, &places[..middle], or)?;
        let (right, depth_of_right) = self.balanced(right, &places[middle..], or)?;
        let (left, right) = (Box::new(left), Box::new(right));
        let kind = if or { Kind::Or(left, right) } else { Kind::And(left, right) };
        self.made(places[middle - 1], kind, depth.max(depth_of_right))
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        let (mut left, mut depth) = self.binary(level + 1)?;
        loop {
            let function = match self.peek() {
                Token::Sign(sign) => operators.iter().find(|(known, _)| known == sign),
                Token::Ident(name, false) if name == "in" => {
                    operators.iter().find(|(known, _)| *known == "in")
                }
                _ => None,
            };
            let Some((_, function)) = function else { return Ok((left, depth)) };
            let at = self.at();
            self.next += 1;
            let (right, depth_of_right) = self.binary(level + 1)?;
            let kind = call(function, vec![left, right]);
            (left, depth) = self.made(at, kind, depth.max(depth_of_right))?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.is_sign("-") {
            match self.tokens.get(self.next + 1).map(|(_, token)| token.clone()) {
                Some(Token::IntMinimum) => {
                    self.next += 2;
                    return self.postfix(Expr::new(at, Kind::Literal(Literal::Int(i64::MIN))), 1);
                }
                Some(Token::Int(value)) => {
                    self.next += 2;
                    return self.postfix(Expr::new(at, Kind::Literal(Literal::Int(-value))), 1);
                }
                Some(Token::Double(value)) => {
                    self.next += 2;
                    return self.postfix(Expr::new(at, Kind::Literal(Literal::Double(-value))), 1);
                }
                _ => {}
            }
        }
        // Two of a kind take each other back.
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0;
            while self.accept(sign) {
                count += 1;
            }
            if count > 0 {
                let (operand, depth) = self.primary_with_postfix()?;
                if count % 2 == 0 {
                    return Ok((operand, depth));
                }
                return self.made(at, call(function, vec![operand]), depth);
            }
        }
        self.primary_with_postfix()
    }

    fn primary_with_postfix(&mut self) -> Parsed {
        let (expr, depth) = self.primary()?;
        self.postfix(expr, depth)
    }

    fn postfix(&mut self, mut expr: Expr, mut depth: usize) -> Parsed {
        loop {
            let at = self.at();
            if self.accept(".") {
                let optional = self.accept("?");
                let Token::Ident(field, quoted) = self.peek().clone() else {
                    return Err(self.unexpected("IDENTIFIER"));
                };
                self.next += 1;
                if !optional && !quoted && self.is_sign("(") {
                    // A call stands where its bracket opens, as in cel-go.
                    let at = self.at();
                    let (arguments, depth_of_arguments) = self.arguments()?;
                    let depth_of_all = depth.max(depth_of_arguments);
                    let kind = method(at, expr, field, arguments)?;
                    // A macro's range and its body lie one level deeper.
                    (expr, depth) = self.made(at, kind, depth_of_all + 1)?;
                    continue;
                }
                if self.is_sign("{") && !optional && qualified(&expr).is_some() {
                    let name = format!("{}.{field}", qualified(&expr).unwrap_or_default());
                    (expr, depth) = self.message(name)?;
                    continue;
                }
                let access = if optional { Access::Optional } else { Access::Value };
                let kind = Kind::Select { operand: Box::new(expr), field, access };
                (expr, depth) = self.made(at, kind, depth)?;
            } else if self.accept("[") {
                let optional = self.accept("?");
                let (index, depth_of_index) = self.expression()?;
                self.expect("]")?;
                let kind = Kind::Index { operand: Box::new(expr), index: Box::new(index), optional };
                (expr, depth) = self.made(at, kind, depth.max(depth_of_index))?;
            } else if let (Kind::Ident(name), true) = (&expr.kind, self.is_sign("{")) {
                let name = name.clone();
                (expr, depth) = self.message(name)?;
            } else {
                return Ok((expr, depth));
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = |literal| Ok((Expr::new(at, Kind::Literal(literal)), 1));
        if self.accept("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.accept("[") {
            return self.list(at);
        }
        if self.accept("{") {
            return self.map(at);
        }
        // A leading dot says that the name is no container's; there are no containers here.
        self.accept(".");
        match self.peek().clone() {
            Token::Ident(name, quoted) => {
                self.next += 1;
                match name.as_str() {
                    _ if quoted => {}
                    "true" => return literal(Literal::Bool(true)),
                    "false" => return literal(Literal::Bool(false)),
                    "null" => return literal(Literal::Null),
                    "in" => {
                        self.next -= 1;
                        return Err(self.unexpected("IDENTIFIER"));
                    }
                    reserved if RESERVED.contains(&reserved) => {
                        return Err(Fault { at, message: format!("reserved identifier: {reserved}") });
                    }
                    _ => {}
                }
                if self.is_sign("(") {
                    let at = self.at();
                    let (arguments, depth) = self.arguments()?;
                    let kind = function(at, name, arguments)?;
                    return self.made(at, kind, depth);
                }
                Ok((Expr::new(at, Kind::Ident(name)), 1))
            }
            Token::Int(value) => {
                self.next += 1;
                literal(Literal::Int(value))
            }
            Token::Uint(value) => {
                self.next += 1;
                literal(Literal::Uint(value))
            }
            Token::Double(value) => {
                self.next += 1;
                literal(Literal::Double(value))
            }
            Token::String(value) => {
                self.next += 1;
                literal(Literal::String(value))
            }
            Token::Bytes(value) => {
                self.next += 1;
                literal(Literal::Bytes(value))
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn arguments(&mut self) -> Result<(Vec<Expr>, usize), Fault> {
        self.expect("(")?;
        let (mut arguments, mut deepest) = (Vec::new(), 0);
        if self.accept(")") {
            return Ok((arguments, deepest));
        }
        loop {
            let (argument, depth) = self.expression()?;
            arguments.push(argument);
            deepest = deepest.max(depth);
            if !self.accept(",") {
                self.expect(")")?;
                return Ok((arguments, deepest));
            }
        }
    }

    fn list(&mut self, at: usize) -> Parsed {
        let (mut items, mut deepest) = (Vec::new(), 0);
        while !self.accept("]") {
            let optional = self.accept("?");
            let (item, depth) = self.expression()?;
            items.push((item, optional));
            deepest = deepest.max(depth);
            if !self.accept(",") {
                self.expect("]")?;
                break;
            }
        }
        self.made(at, Kind::List(items), deepest)
    }

    fn map(&mut self, at: usize) -> Parsed {
        let (mut entries, mut deepest) = (Vec::new(), 0);
        while !self.accept("}") {
            let optional = self.accept("?");
            let (key, depth_of_key) = self.expression()?;
            self.expect(":")?;
            let (value, depth) = self.expression()?;
            entries.push((key, value, optional));
            deepest = deepest.max(depth).max(depth_of_key);
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        self.made(at, Kind::Map(entries), deepest)
    }

    fn message(&mut self, name: String) -> Parsed {
        let at = self.at();
        self.expect("{")?;
        let (mut fields, mut deepest) = (Vec::new(), 0);
        while !self.accept("}") {
            let optional = self.accept("?");
            let Token::Ident(field, _) = self.take() else {
                self.next = self.next.saturating_sub(1);
                return Err(self.unexpected("IDENTIFIER"));
            };
            self.expect(":")?;
            let (value, depth) = self.expression()?;
            fields.push((field, value, optional));
            deepest = deepest.max(depth);
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        self.made(at, Kind::Message { name, fields }, deepest)
    }
}

fn call(function: &str, arguments: Vec<Expr>) -> Kind {
    Kind::Call { function: function.to_owned(), target: None, arguments }
}

/// The name that a chain of selections spells.
pub(crate) fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, access: Access::Value } => {
            Some(format!("{}.{field}", qualified(operand)?))
        }
        _ => None,
    }
}

/// A function's call, or the macro `has`.
fn function(at: usize, name: String, mut arguments: Vec<Expr>) -> Result<Kind, Fault> {
    if name != "has" {
        return Ok(Kind::Call { function: name, target: None, arguments });
    }
    match (arguments.pop(), arguments.is_empty()) {
        (Some(Expr { kind: Kind::Select { operand, field, access: Access::Value }, .. }), true) => {
            Ok(Kind::Select { operand, field, access: Access::Presence })
        }
        _ => Err(Fault { at, message: "invalid argument to has() macro".to_owned() }),
    }
}

/// A method's call, or a macro.
fn method(at: usize, target: Expr, name: String, mut arguments: Vec<Expr>) -> Result<Kind, Fault> {
    let does = match (name.as_str(), arguments.len()) {
        ("all", 2 | 3) => Does::All,
        ("exists", 2 | 3) => Does::Exists,
        ("exists_one" | "existsOne", 2 | 3) => Does::ExistsOne,
        ("filter", 2) => Does::Filter,
        ("map", 2 | 3) | ("transformList", 3 | 4) => Does::Map,
        ("transformMap", 3 | 4) => Does::TransformMap,
        ("transformMapEntry", 3 | 4) => Does::TransformMapEntry,
        ("sortBy", 2) => Does::SortBy,
        ("optMap", 2) => Does::OptMap,
        ("optFlatMap", 2) => Does::OptFlatMap,
        _ => return Ok(Kind::Call { function: name, target: Some(Box::new(target)), arguments }),
    };
    let with_second = match does {
        Does::Map => name == "transformList",
        Does::TransformMap | Does::TransformMapEntry => true,
        _ => arguments.len() == 3,
    };
    let mut rest = arguments.split_off(1 + usize::from(with_second));
    let variable = |arguments: &mut Vec<Expr>| match arguments.pop() {
        Some(Expr { kind: Kind::Ident(name), .. }) => Ok(name),
        _ => Err(Fault { at, message: "argument must be a simple name".to_owned() }),
    };
    let second = if with_second { Some(variable(&mut arguments)?) } else { None };
    let first = variable(&mut arguments)?;
    if second.as_ref() == Some(&first) {
        return Err(Fault { at, message: format!("duplicate variable name: {first}") });
    }
    let body = rest.pop();
    let filter = rest.pop();
    let Some(body) = body else {
        return Err(Fault { at, message: format!("a macro without a body: {name}") });
    };
    Ok(Kind::Comprehension(Box::new(Comprehension { does, range: target, first, second, filter, body })))
}
