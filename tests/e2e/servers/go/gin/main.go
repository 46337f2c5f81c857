// SPDX-License-Identifier: Apache-2.0

// Command gin serves the test service with gin. Usage: gin PORT
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"
	"otelauto.test/servers/accesslog"
	"otelauto.test/servers/service"
)

func main() {
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	for name, handler := range service.Handlers {
		router.Any("/"+name+"/:id", gin.WrapF(handler))
	}
	router.Any("/status/:code/:id", gin.WrapF(service.Status))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], accesslog.Wrap(router)))
}
