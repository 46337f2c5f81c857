// SPDX-License-Identifier: Apache-2.0

// Command gorilla serves the test service with gorilla/mux. Usage: gorilla PORT
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gorilla/mux"
	"otelauto.test/servers/accesslog"
	"otelauto.test/servers/service"
)

func main() {
	router := mux.NewRouter()
	for name, handler := range service.Handlers {
		router.HandleFunc("/"+name+"/{id}", handler)
	}
	router.HandleFunc("/status/{code}/{id}", service.Status)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], accesslog.Wrap(router)))
}
