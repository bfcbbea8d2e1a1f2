// main.cpp - the minillm command.
int main() { return 2; }
