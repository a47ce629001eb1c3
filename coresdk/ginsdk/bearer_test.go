// SPDX-License-Identifier: Apache-2.0

package ginsdk

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/medirecord/medirecord/coresdk"
)

// Not parallel: it counts the allocations of the whole process.
func TestTheRoadOfEveryRequestAllocatesNothing(t *testing.T) {
	h := http.Header{"Authorization": {"Bearer a.b.c"}}
	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	c.Set(claimsKey{}, &coresdk.Claims{Roles: []string{"nurse"}})
	if n := testing.AllocsPerRun(100, func() {
		if token, err := bearer(h); err != nil || token != "a.b.c" || !Claims(c).Is("nurse") {
			t.Error("the token or the role was not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzBearer(f *testing.F) {
	for _, s := range []string{"Bearer a", "bearer  a", "Bearer", "Basic a", "Bearer a b", " Bearer a", "Bearer a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := bearer(http.Header{"Authorization": {s}})
		if (token == "") == (err == nil) {
			t.Fatalf("%q gives %q and %v", s, token, err)
		}
		if err == nil && (len(token) > coresdk.MaxToken || strings.ContainsAny(token, " ,\t") || !strings.EqualFold(s[:7], "Bearer ")) {
			t.Errorf("%q gives %q", s, token)
		}
		if _, err := bearer(http.Header{"Authorization": {s, s}}); err == nil {
			t.Errorf("%q passes twice", s)
		}
	})
}
