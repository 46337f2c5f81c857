// SPDX-License-Identifier: Apache-2.0

// Command nethttp serves the test service with net/http's own mux. Usage: nethttp PORT
package main

import (
	"log"
	"net/http"
	"os"

	"otelauto.test/servers/accesslog"
	"otelauto.test/servers/service"
)

func main() {
	mux := http.NewServeMux()
	for name, handler := range service.Handlers {
		mux.HandleFunc("/"+name+"/", handler)
	}
	mux.HandleFunc("/status/", service.Status)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], accesslog.Wrap(mux)))
}
