//! What is read from an item.

/// What is read from an item, each by an expression of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// What one email is sent for.
    Id,
    /// Where it goes.
    Email,
    /// The customer's name.
    Name,
    /// What the customer pays.
    Total,
    /// In which currency.
    Currency,
    /// The lines of the order.
    Lines,
    /// Of a line: the article.
    LineName,
    /// Of a line: how many.
    LineQuantity,
    /// Of a line: what one costs.
    LinePrice,
    /// The customer's language.
    Language,
    /// Where the customer's answer goes.
    ReplyTo,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Id,
        Self::Email,
        Self::Name,
        Self::Total,
        Self::Currency,
        Self::Lines,
        Self::LineName,
        Self::LineQuantity,
        Self::LinePrice,
        Self::Language,
        Self::ReplyTo,
    ];

    /// Its name: that of its flag, and in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Email => "email",
            Self::Name => "name",
            Self::Total => "total",
            Self::Currency => "currency",
            Self::Lines => "lines",
            Self::LineName => "line-name",
            Self::LineQuantity => "line-quantity",
            Self::LinePrice => "line-price",
            Self::Language => "language",
            Self::ReplyTo => "order-reply-to",
        }
    }

    /// The expression where none is set. The default id is the table's key.
    pub(super) fn default(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Email => "email",
            Self::Name => "name or customer_name",
            Self::Total => "total|minor",
            Self::Currency => "currency",
            Self::Lines => "lines or items",
            Self::LineName => "line if line is string else name or title",
            Self::LineQuantity => "quantity",
            Self::LinePrice => "unit_price|minor",
            Self::Language => "language",
            Self::ReplyTo => "none",
        }
    }
}
