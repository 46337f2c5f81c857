module otelauto.test/bench/nethttp

go 1.19
