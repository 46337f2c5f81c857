module otelauto.test/client

go 1.19
