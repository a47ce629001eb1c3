// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

func TestAuthorship(t *testing.T) {
	t.Parallel()
	me := med.Caller{Issuer: "https://issuer.test", Subject: "dr-a"}
	in := &entered{caller: &me}
	now := time.Now()
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMilli() }
	for _, tc := range []struct {
		name string
		head sealedHeader
		want med.Authorship
	}{
		{"lately", sealedHeader{By: actor(&me), At: ago(23 * time.Hour)}, med.AuthorshipOwnRecent},
		{"more than a day ago", sealedHeader{By: actor(&me), At: ago(24*time.Hour + time.Minute)}, med.AuthorshipOwn},
		{"a colleague", sealedHeader{By: actor(&med.Caller{Issuer: me.Issuer, Subject: "dr-b"}), At: ago(0)}, med.AuthorshipOther},
		{"a namesake of another issuer", sealedHeader{By: actor(&med.Caller{Issuer: "https://other.test", Subject: me.Subject}), At: ago(0)}, med.AuthorshipOther},
		{"imported, whoever it says", sealedHeader{Author: me.Subject}, med.AuthorshipOther},
	} {
		if got := in.authorship(&tc.head, now); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}
