// SPDX-License-Identifier: Apache-2.0

// Command ginservice is an appointment desk behind the CoreSDK sidecar.
package main

import (
	"cmp"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/ginsdk"
)

func main() {
	sdk, err := coresdk.FromEnv()
	if err != nil {
		log.Fatal(err) // no sidecar, no service
	}
	r := gin.New()
	r.Use(gin.Recovery(), ginsdk.Middleware(sdk))
	r.GET("/appointments", ginsdk.RequireRole("clinician", "nurse"), func(c *gin.Context) {
		c.JSON(http.StatusOK, gin.H{"practice": ginsdk.Claims(c).TenantID, "next": "09:30"})
	})
	addr := cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080")
	log.Fatal((&http.Server{Addr: addr, Handler: r, ReadHeaderTimeout: 5 * time.Second}).ListenAndServe())
}
