// The limit: sends back what it gets.
#include "serve.h"

static void answer(unsigned char *message) { (void)message; }

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    serve(argv[1]);
}
