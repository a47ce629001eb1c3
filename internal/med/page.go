// SPDX-License-Identifier: Apache-2.0

package med

// Page says which part of a list is wanted: at most Limit of its items, from
// where the cursor of the page before left off; from the beginning without one.
type Page struct {
	Limit  int
	Cursor string
}

// The items of one page.
const (
	DefaultLimit = 50
	MaxLimit     = 200
)

// Rows is the limit as a number of rows, never above MaxLimit.
func (p Page) Rows() int32 {
	switch {
	case p.Limit <= 0:
		return DefaultLimit
	case p.Limit > MaxLimit:
		return MaxLimit
	}
	return int32(p.Limit) //nolint:gosec // at most MaxLimit
}
