// SPDX-License-Identifier: Apache-2.0

package med

import "time"

// AccessEvent is one entry of the trail as the guide's face shows it.
type AccessEvent struct {
	ID        EventID
	Timestamp time.Time // UTC, to the millisecond
	Actor     string    // subject, or service:<name>
	Action    string    // read, break_glass, import, ...
	Resource  string    // patient/<id>
	Outcome   string    // success, access_granted, denied, failure
	Reason    PHI       // the break-glass reason, opened
	// BreakGlass is set when the access stood on a grant.
	BreakGlass            bool
	Clear, Masked, Hidden []Field
}
