//! What clients see of a row.

/// Declares a shape that clients see, with how it is made `from` one value or `of` several. Each member is the first value's
/// member of the same name, or what stands after `=`. What members share is bound after `where`. A member with `?` is always there,
/// and null where there is nothing.
macro_rules! view {
    (
        $(#[$meta:meta])*
        $vis:vis struct $View:ident from $row:ident: $Row:ty $(where $($shared:pat = $of:expr;)+)? {
            $($members:tt)*
        }
    ) => {
        $crate::view::view! {
            $(#[$meta])*
            $vis struct $View of($row: $Row) $(where $($shared = $of;)+)? { $($members)* }
        }

        impl From<$Row> for $View {
            fn from($row: $Row) -> $View {
                $View::of($row)
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $View:ident of($row:ident: $Row:ty $(, $more:ident: $More:ty)*)
        $(where $($shared:pat = $of:expr;)+)? { $($members:tt)* }
    ) => {
        $crate::view::view!(@declare $(#[$meta])* $vis $View { $($members)* });

        impl $View {
            /// What clients see of it.
            #[must_use]
            $vis fn of($row: $Row $(, $more: $More)*) -> $View {
                $($(let $shared = $of;)+)?
                $crate::view::view!(@make $View $row { $($members)* })
            }
        }
    };
    (
        @declare $(#[$meta:meta])* $vis:vis $View:ident {
            $($(#[$about:meta])* $seen:vis $member:ident $(?: $Null:ty)? $(: $Type:ty)? $(= $value:expr)?,)*
        }
    ) => {
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        $(#[$meta])*
        $vis struct $View {
            $(
                $(#[$about])*
                $(#[schema(required = true)] $seen $member: Option<$Null>)?
                $($seen $member: $Type)?,
            )*
        }
    };
    (
        @make $View:ident $row:ident {
            $($(#[$about:meta])* $seen:vis $member:ident $(?: $Null:ty)? $(: $Type:ty)? $(= $value:expr)?,)*
        }
    ) => {
        $View { $($member: $crate::view::view!(@value $row $member $($value)?),)* }
    };
    (@value $row:ident $member:ident) => { $row.$member };
    (@value $row:ident $member:ident $value:expr) => { $value };
}
pub(crate) use view;
